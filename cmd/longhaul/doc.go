// Longhaul is the operator's command. It asks a gateway (longhauld) over its
// unix socket and shows what it says. Only init, join, inspect and demo do
// work of their own.
//
// Data goes to stdout, as tables or with --json as one document (JSON lines
// for job watch and segment show --live); progress and messages go to stderr. Exit codes are in exit.go
// and in "longhaul help exit-codes".
package main
