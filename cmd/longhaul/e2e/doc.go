// Package e2e tests Longhaul as its users run it: real QEMUs, real gateways in
// processes of their own, and an emulated WAN between two network namespaces.
// It has tests only.
//
// Each test makes a bed: a lab, a pair of gateways, and a guest that proves its
// memory, its disk and its connections. Phases of a move are told by the
// events of its job, at both sites; nothing is timed by sleeping.
package e2e
