// Package hvtest holds what every hypervisor adaptor has to pass, and a
// hypervisor that only pretends.
//
// [Run] is the conformance suite of gateway.Host. It moves a VM between two
// hosts through a relay that obeys the dial rules, and breaks the move at each
// of its steps.
//
// [FakeHost] is a machine whose hypervisor processes are goroutines. It writes
// and loads streams in QEMU's format, stops and resumes guests, and keeps its
// state where a test can see it, print it and break it. It passes Run too.
// A [Ledger], shared by the hosts of a test, notes when which copy of a VM
// executes, and what must never happen: two copies at a time, a copy that goes
// on from a state which has been left behind, a copy with wrong memory.
//
// What the fake has in common with QEMU 7.2, because the path depends on it:
//
//   - the first connection to a sink is the main channel, whatever it says; a
//     connection that closes without a word ends the process;
//   - while a connection is open and silent, the sink's monitor hangs;
//   - a sink loads once; when that fails, its process ends;
//   - a source whose leg breaks before it has read SHUT resumes on its own;
//   - the stream is written as fast as the leg takes it, and no faster.
package hvtest
