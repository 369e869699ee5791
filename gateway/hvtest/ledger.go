package hvtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Ledger notes when each copy of a VM executes. All hosts of one test share
// one. The zero value is empty and ready.
type Ledger struct {
	mu     sync.Mutex
	vms    map[string]*account
	faults []string
	copies uint64
}

// An account is what the ledger knows of one VM.
type account struct {
	epoch uint64 // times that any copy began to execute
	runs  []Interval
}

// Interval is a time in which one copy of a VM executed.
type Interval struct {
	Host string
	From time.Time
	To   time.Time // zero while it executes

	copy uint64 // number of the process, for two copies at one host
}

// newCopy numbers a process that can execute VMs.
func (l *Ledger) newCopy() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.copies++
	return l.copies
}

// begin notes that a copy starts to execute from the state that the VM had in
// epoch, and returns the epoch that begins with this.
func (l *Ledger) begin(vm, host string, copy, epoch uint64, memoryOK bool) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.vms == nil {
		l.vms = make(map[string]*account)
	}
	a := l.vms[vm]
	if a == nil {
		a = &account{epoch: epoch}
		l.vms[vm] = a
	}
	for _, r := range a.runs {
		if r.To.IsZero() {
			l.faults = append(l.faults, fmt.Sprintf("%s executes at %s and at %s", vm, r.Host, host))
		}
	}
	if epoch != a.epoch {
		l.faults = append(l.faults, fmt.Sprintf("%s executes at %s from a state that was left behind (epoch %d, not %d)", vm, host, epoch, a.epoch))
	}
	if !memoryOK {
		l.faults = append(l.faults, fmt.Sprintf("%s executes at %s with wrong memory", vm, host))
	}
	a.epoch++
	a.runs = append(a.runs, Interval{Host: host, From: time.Now(), copy: copy})
	return a.epoch
}

func (l *Ledger) end(vm string, copy uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.vms[vm]
	for i := range a.runs {
		if r := &a.runs[i]; r.copy == copy && r.To.IsZero() {
			r.To = time.Now()
		}
	}
}

// Running returns the hosts at which the VM executes now. More than one, or
// the same twice, is a fault.
func (l *Ledger) Running(vm string) []string {
	var hosts []string
	for _, r := range l.Intervals(vm) {
		if r.To.IsZero() {
			hosts = append(hosts, r.Host)
		}
	}
	return hosts
}

// Intervals returns when and where the VM executed, in order.
func (l *Ledger) Intervals(vm string) []Interval {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.vms[vm]; a != nil {
		return slices.Clone(a.runs)
	}
	return nil
}

// Faults returns what happened and must not.
func (l *Ledger) Faults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.faults)
}

// Check fails the test if there are faults, or if the VM does not execute at
// host; "" stands for nowhere.
func (l *Ledger) Check(t testing.TB, vm, host string) {
	t.Helper()
	for _, f := range l.Faults() {
		t.Errorf("ledger: %s", f)
	}
	if got := strings.Join(l.Running(vm), ", "); got != host {
		t.Errorf("ledger: %s runs at %q, want %q", vm, got, host)
	}
}

// String lists where the VMs executed, without times: "db1: a b a*"; the star
// means still. Faults follow.
func (l *Ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, 0, len(l.vms))
	for name := range l.vms {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s:", name)
		for _, r := range l.vms[name].runs {
			fmt.Fprintf(&b, " %s", r.Host)
			if r.To.IsZero() {
				b.WriteByte('*')
			}
		}
		b.WriteByte('\n')
	}
	for _, f := range l.faults {
		fmt.Fprintf(&b, "fault: %s\n", f)
	}
	return b.String()
}
