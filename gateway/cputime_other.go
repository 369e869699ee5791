//go:build !linux

package gateway

import "time"

// threadTime is the time of day: this system does not tell what a thread has
// used. On a busy machine work then looks dearer than it is.
func threadTime() time.Duration { return time.Duration(time.Now().UnixNano()) }

// processTime is not known on this system.
func processTime() time.Duration { return 0 }

// machineTime is not known on this system.
func machineTime() (idle, all uint64, ok bool) { return 0, 0, false }
