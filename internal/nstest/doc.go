// Package nstest makes network namespaces, for tests that need a kernel and
// for the lab that plays two sites on one machine.
//
// A test asks for anonymous namespaces, which the kernel removes when the test
// process ends, however it ends:
//
//	a, b := nstest.New(t), nstest.New(t)
//	nstest.Veth(a, "eth0", b, "eth0")
//	a.Addr("eth0", "10.0.0.1/24")
//	err := a.Do(func() error { … sockets made here live in a … })
//
// The lab uses Create with a name, so that a person can enter the namespace
// with `ip netns exec NAME`; such a namespace lasts until Close or Remove.
//
// Everything is done to devices inside namespaces made here; the host's own
// network is never touched.
package nstest
