// Package qmp speaks the QEMU Machine Protocol over a unix socket
// (QEMU docs/interop/qmp-spec.rst).
//
//	server: {"QMP": {"version": {…}, "capabilities": ["oob"]}}
//	client: {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}, "id": 1}
//	server: {"return": {}, "id": 1}
//	client: {"execute": "query-status", "id": 2}
//	server: {"event": "STOP", "timestamp": {…}}
//	server: {"return": {…}, "id": 2}   or   {"error": {"class": …, "desc": …}, "id": 2}
//
// What one has to know:
//
//   - A monitor serves one client. A second one connects, is not accepted and
//     gets no greeting until the first has gone: [Dial] gives up after
//     GreetingWait with ErrMonitorBusy.
//   - Commands are answered in order and wait for QEMU's main loop. Only those
//     sent out of band (yank, migrate-pause, migrate-recover) pass it by.
//   - A message has no length; it ends with its last brace. More than
//     MaxMessage bytes, or bytes that are no message, end the connection with
//     an error.
//   - Events come unasked. [Client.Subscribe] keeps them in a bounded queue
//     from which none is lost without an error.
package qmp
