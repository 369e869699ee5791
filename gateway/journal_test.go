package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func TestJournalKeepsBothRoles(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.Repeat("1", 32)
	for role, step := range map[Role]Step{RoleSource: StepHandover, RoleDestination: StepStarting} {
		if err := j.Put(Entry{Token: token, Role: role, Step: step, Peer: "b", Spec: Spec{VM: "db1"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(dir); err != nil { // what it says survives
		t.Fatal(err)
	}
	defer j.Close()
	src, ok, err := j.Get(token, RoleSource)
	if err != nil || !ok || src.Step != StepHandover || src.Spec.VM != "db1" || !src.Open() || src.Changed.IsZero() {
		t.Errorf("source: %+v, %v, %v", src, ok, err)
	}
	if dst, ok, _ := j.Get(token, RoleDestination); !ok || dst.Step != StepStarting {
		t.Errorf("destination: %+v, %v", dst, ok)
	}
	if _, ok, err := j.Get(strings.Repeat("2", 32), RoleSource); ok || err != nil {
		t.Errorf("an unknown move: %v, %v", ok, err)
	}
}

func TestJournalTrimsOnlyEnded(t *testing.T) {
	j, err := OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	j.db.NoSync = true // hundreds of entries, none of them worth a disk's time
	for i := range keepEnded + 5 {
		if err := j.Put(Entry{Token: fmt.Sprintf("%032x", i), Role: RoleSource, Step: StepDone}); err != nil {
			t.Fatal(err)
		}
	}
	open := Entry{Token: strings.Repeat("f", 32), Role: RoleDestination, Step: StepPrepared}
	if err := j.Put(open); err != nil {
		t.Fatal(err)
	}
	if err := j.Trim(); err != nil {
		t.Fatal(err)
	}
	all, err := j.All()
	if err != nil || len(all) != keepEnded+1 {
		t.Errorf("%d entries are left, %v; want %d", len(all), err, keepEnded+1)
	}
	if _, ok, _ := j.Get(open.Token, open.Role); !ok {
		t.Error("an open move was dropped")
	}
	if _, ok, _ := j.Get(fmt.Sprintf("%032x", 0), RoleSource); ok {
		t.Error("the oldest ended move was kept")
	}
}

func TestJournalRefusesASecondGateway(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	begun := time.Now()
	if second, err := OpenJournal(dir); err == nil {
		second.Close()
		t.Error("two gateways share a journal")
	} else if !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("it does not say why: %v", err)
	} else if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("refused after %v", took)
	}
}

// TestJournalView: a crash between the end of a move and that of its job leaves
// no job that never ends, and would keep its VM from being moved.
func TestJournalView(t *testing.T) {
	at := time.Now().UTC()
	for _, tt := range []struct {
		step  Step
		job   Job
		state JobState
		err   string
	}{
		{StepMoving, Job{State: JobMoving}, JobMoving, ""},
		{StepHandover, Job{State: JobInDoubt, Safe: "wait"}, JobInDoubt, ""},
		{StepDone, Job{State: JobCommit, Phase: "releasing the source"}, JobDone, ""},
		{StepDone, Job{State: JobDone}, JobDone, ""},
		{StepAborted, Job{State: JobMoving, Phase: "going back: no room"}, JobFailed, "going back: no room"},
		{StepAborted, Job{State: JobMoving, Phase: "x", Error: "no room"}, JobFailed, "no room"},
		{StepAborted, Job{State: JobAborted, Error: "no room"}, JobAborted, "no room"},
	} {
		v := Entry{Step: tt.step, Job: tt.job, Changed: at}.view()
		if v.State != tt.state || v.Error != tt.err {
			t.Errorf("step %s, job %+v: %+v; want %s, %q", tt.step, tt.job, v, tt.state, tt.err)
		}
		if v.State.Ended() && !tt.job.State.Ended() && (v.Ended == nil || !v.Ended.Equal(at) || v.Safe != "") {
			t.Errorf("step %s, job %+v: ended at %v, safe %q", tt.step, tt.job, v.Ended, v.Safe)
		}
	}
}

// What a move has left stays in the journal, however many moves come after it.
func TestTrimKeepsWhatIsLeft(t *testing.T) {
	j := newJournal(t)
	token := func(i int) string { return fmt.Sprintf("%032x", i) }
	for i := range 300 {
		if err := j.Put(Entry{Token: token(i), Role: RoleSource, Step: StepDone, Left: i == 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Trim(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if _, ok, err := j.Get(token(i), RoleSource); ok != want || err != nil {
			t.Errorf("entry %d is there: %v, %v", i, ok, err)
		}
	}
}

// A VM that has been at a host again is told by the order of its moves there, not by
// clocks; a destination that was given up has not been there.
func TestSuperseded(t *testing.T) {
	j := newJournal(t)
	put := func(i int, vm, host string, r Role, s Step) Entry {
		e := Entry{Token: fmt.Sprintf("%032x", i), Role: r, Step: s, Host: host, Spec: Spec{VM: vm}}
		if err := j.Put(e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := put(1, "db1", "a", RoleSource, StepReleased)
	check := func(want bool) {
		t.Helper()
		if got, err := j.Superseded(first); got != want || err != nil {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	put(2, "db2", "a", RoleDestination, StepDone)
	put(3, "db1", "b", RoleDestination, StepDone)
	put(4, "db1", "a", RoleDestination, StepAborted)
	put(5, "db1", "a", RoleDestination, StepPrepared)
	check(false)
	put(5, "db1", "a", RoleDestination, StepStarting)
	check(true)
	put(1, "db1", "a", RoleSource, StepReleased) // written anew, and still the first
	check(true)
}

func newJournal(t *testing.T) *Journal {
	t.Helper()
	j, err := OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// The entries of a version that did not number moves are numbered by when they began,
// whatever the order in which they are written again.
func TestJournalNumbersOldEntries(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := func(i int, r Role, s Step) Entry {
		return Entry{
			Token: fmt.Sprintf("%032x", i), Role: r, Step: s, Host: "a", Spec: Spec{VM: "db1"},
			Job: Job{Started: time.Unix(int64(i), 0)},
		}
	}
	home, away := old(2, RoleDestination, StepRunning), old(1, RoleSource, StepReleased)
	err = j.db.Update(func(tx *bbolt.Tx) error {
		for _, e := range []Entry{home, away} {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := tx.Bucket(movesBucket).Put(e.key(), b); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, j.Close()); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(dir); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, e := range []Entry{home, away} {
		if err := j.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	if since, err := j.Superseded(away); !since || err != nil {
		t.Errorf("that the VM has come home since: %v, %v", since, err)
	}
	if since, err := j.Superseded(home); since || err != nil {
		t.Errorf("that it has come home since it did: %v, %v", since, err)
	}
}
