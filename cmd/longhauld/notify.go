package main

import (
	"fmt"
	"net"
	"os"
)

// notify tells systemd how the service is (sd_notify(3)): one datagram to the
// socket that it names. Without systemd it does nothing, and nothing depends on
// whether it arrives.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' { // abstract namespace
		path = "\x00" + path[1:]
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Write([]byte(state))
}

// reloadingNow is the message that begins a reload; systemd compares its time
// with its own CLOCK_MONOTONIC.
func reloadingNow() string {
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicMicros())
}
