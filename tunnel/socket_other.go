//go:build !linux

package tunnel

import "net"

// segmentSize: only Linux has segmentation offload for UDP.
func segmentSize([]byte) int { return 0 }

// readNotes: only Linux says anything.
func readNotes([]byte) notes { return notes{} }

// tune leaves all as it is.
func tune(*net.UDPConn) (joins bool) { return false }
