// Package e2e tests Longhaul as its users run it: real QEMUs, real gateways in
// processes of their own, and an emulated WAN between two network namespaces.
// It has tests only, and one benchmark: what clients lose while a guest moves,
//
//	go test -run '^$' -bench GuestMoves -benchtime 10x ./cmd/longhaul/e2e
//
// which wants an idle machine, and is a part of `make bench-layer2`.
//
// Each test makes a bed: a lab, a pair of gateways, and a guest that proves its
// memory, its disk and its connections. Phases of a move are told by the
// events of its job, at both sites; nothing is timed by sleeping.
package e2e
