// Package qemutest runs real QEMUs for tests and captures the streams of their
// migrations.
//
// A guest is a 512-byte boot sector that writes to each page of a part of its
// memory, for ever, so that a migration iterates for as long as the test wants
// it to. It runs under TCG; nothing of the host is touched but a temporary
// directory. File captures a stream without a return path, Relay captures all
// connections of a move between two QEMUs in both directions.
//
//	c := qemutest.Relay(t, qemutest.Config{Dirty: 4, Multifd: 2})
//	main := c.Channels[0].Forward
package qemutest
