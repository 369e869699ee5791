// Package lab plays two sites, the WAN between them and a client on one
// machine, in network namespaces.
//
//	 namespace lh-ID-c      namespace lh-ID-a                     namespace lh-ID-b
//	┌──────────────┐  veth ┌────────────────────────┐            ┌────────────────────────┐
//	│ client       ├───────┤ br-lan ── tap of guest │            │ br-lan ── tap of guest │
//	│ 10.77.0.2/24 │       │                        │   wanem    │                        │
//	└──────────────┘       │ wan0 198.51.100.1/24 ──┼────────────┼── wan0 198.51.100.2/24 │
//	                       └────────────────────────┘            └────────────────────────┘
//
// The third host, the client, sits on the LAN of site a. Gateways and QEMU
// processes run inside the namespaces; the emulator runs in this process.
// More hosts, and a third site with lines of its own, are added by AddHost and
// AddSite.
// Nothing outside the namespaces is touched but names below /run/netns and the
// lab's folder.
//
// A [Lab] is removed by Close. If the process dies first, a watchdog does it:
// a shell that waits for the end of a pipe which we hold. Should that die too,
// [Cleanup], with which every demo begins, removes what belongs to processes
// that are gone.
//
// Tools that have to be installed: ip (iproute2), and what bench/guest needs.
package lab
