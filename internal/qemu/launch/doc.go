// Package launch starts the hypervisor process that is the destination of a
// move.
//
// Two ways lead to its command line. [Rewrite] makes it from the source's own:
// all that is said of the guest stays, word by word, and what belongs to a
// process or a host goes. [Expand] makes it from a template of the operator.
// [Start] then runs it, without a shell, such that it outlives this process.
//
// # Trust
//
// A command line that comes from another site can do all that QEMU can:
// open any file, run helpers and connect anywhere, as the user that the gateway
// starts it as. Rewrite checks which program is started and refuses what would
// run others or change the user, but whoever permits it trusts the gateways of
// the other sites as he trusts this one. With a template, nothing but names
// and numbers comes from the other site, and each is checked for its form.
package launch
