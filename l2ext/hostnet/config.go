package hostnet

import (
	"errors"
	"log/slog"
)

// Config of a Net. The zero value works.
type Config struct {
	// NetNS is a file descriptor of the network namespace to work in. 0 means
	// the one of the process.
	NetNS int
	// Tun is the name of the carrier's device. Empty means "lhtun0".
	Tun string
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// DefaultTun is the name of the carrier's device.
const DefaultTun = "lhtun0"

// mark begins the alias of every device made here.
const mark = "longhaul:"

// ErrRights says that a process may not do what it would have to.
var ErrRights = errors.New("hostnet: not enough rights")
