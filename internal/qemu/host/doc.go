// Package host makes the QEMU processes of one machine a gateway.Host, over
// their QMP sockets.
//
// VMs are found at sockets: those of the config, those in a directory, and
// those in the run directory, where this package starts destinations. A VM
// that has come here is listed at its place in the run directory from then on,
// and moves away again from there.
//
//	/run/longhaul/HOST/TOKEN/   one destination, named by the token of its move
//	    qmp         its monitor
//	    in          where it listens for the stream
//	    log         its output
//	    place.json  the Spec that it was started for, and its process
//	/run/longhaul/HOST/VM.log   the last output of a VM's process that has ended
//
// A monitor serves one client, so that all who want it share one connection;
// while nobody does, it is closed, and others can use it.
//
// The host's hooks run before a destination is started and after a process
// has been ended by us. They get LONGHAUL_EVENT, _HOST, _VM, _UUID, _MEMORY
// (bytes), _TOKEN, _TAPS and _MACS (lists with spaces) in their environment.
//
// Nothing here resumes, stops or ends a VM unless a call of gateway.Source or
// gateway.Sink says so, and what would run a second copy or end the only one
// is refused: Release and Discard of a VM that executes, Resume of one that
// loads or whose migration has not ended.
package host
