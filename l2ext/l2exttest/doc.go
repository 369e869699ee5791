// Package l2exttest helps to test what is built on l2ext without a kernel and
// without a WAN: Host is a machine's network in memory that prints its state,
// Wire joins managers by a line with delay and loss. Suite is what Host and the
// real one, l2ext/hostnet, both have to pass.
package l2exttest
