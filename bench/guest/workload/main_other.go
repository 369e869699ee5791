//go:build !linux

// Command workload runs in a Linux guest only.
package main

func main() {}
