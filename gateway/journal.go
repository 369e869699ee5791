package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// Step is how far a move's ownership has come, as one side has written it
// down. A side writes a step before it acts on it, never after.
type Step string

// The steps of the source. It owns the VM up to StepHandover. From then on
// only the destination's word decides: see commit.go.
const (
	StepMoving   Step = "moving"    // the destination cannot have been told to run
	StepHandover Step = "handover"  // the order to run may have been sent: the source must not run
	StepReleased Step = "committed" // the destination runs: the source's process may be ended
)

// The steps of the destination. The VM may execute there from StepStarting on.
const (
	StepPrepared Step = "prepared" // a paused process waits; it may not run without the order
	StepStarting Step = "starting" // the order was received; the process may run
	StepRunning  Step = "running"  // the process runs
)

// The ends of both.
const (
	StepDone    Step = "done"
	StepAborted Step = "aborted"
)

// Role is a gateway's part in a move.
type Role string

// The parts.
const (
	RoleSource      Role = "source"
	RoleDestination Role = "destination"
)

// Entry is what one side has written down of a move.
type Entry struct {
	Token   string    `json:"token"`
	Role    Role      `json:"role"`
	Step    Step      `json:"step"`
	Peer    string    `json:"peer"` // the other site
	Host    string    `json:"host"` // our host
	Spec    Spec      `json:"spec"`
	Process string    `json:"process,omitempty"` // of a source: Source.Process, if it tells
	Ran     bool      `json:"ran"`               // of a source: the VM executed when the move began
	Left    bool      `json:"left,omitempty"`    // its process is not needed any more, and may still be there
	Seq     uint64    `json:"seq,omitempty"`     // order in which moves were written down here first; Put sets it
	Job     Job       `json:"job"`
	Changed time.Time `json:"changed"`
}

// Open tells whether the move still needs something done.
func (e Entry) Open() bool { return e.Step != StepDone && e.Step != StepAborted }

// view is the job as an earlier run of the gateway has left it. That a move has
// ended is written down before its job says so, and a crash can come between.
func (e Entry) view() Job {
	v := e.Job
	if e.Open() || v.State.Ended() {
		return v
	}
	at := e.Changed
	v.Ended, v.Safe = &at, ""
	if e.Step == StepDone {
		v.State, v.Phase = JobDone, string(JobDone)
		return v
	}
	v.Error = cmp.Or(v.Error, v.Phase) // "going back: " and why
	v.State, v.Phase = JobFailed, string(JobFailed)
	return v
}

var movesBucket = []byte("moves")

// keepEnded is how many ended moves stay in the journal, for `job list`.
const keepEnded = 200

// Journal keeps the entries of a gateway's moves. Put returns when the entry
// is on the disk. Safe for concurrent use.
type Journal struct {
	db     *bbolt.DB
	refuse atomic.Pointer[func(Entry) error] // of tests: a disk that does not take an entry
}

// OpenJournal opens or makes the journal in dir.
func OpenJournal(dir string) (*Journal, error) {
	path := filepath.Join(dir, "journal.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening journal %s: another gateway runs on it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening journal %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(movesBucket)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening journal %s: %w", path, err)
	}
	j := &Journal{db: db}
	if err := j.number(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening journal %s: %w", path, err), db.Close())
	}
	return j, nil
}

// number gives the entries of a version that did not number them their order.
func (j *Journal) number() error {
	all, err := j.All()
	if err != nil {
		return err
	}
	old := slices.DeleteFunc(all, func(e Entry) bool { return e.Seq != 0 })
	if len(old) == 0 {
		return nil
	}
	slices.SortFunc(old, func(a, b Entry) int {
		return cmp.Or(a.Job.Started.Compare(b.Job.Started), a.Changed.Compare(b.Changed))
	})
	return j.db.Update(func(tx *bbolt.Tx) (err error) {
		moves := tx.Bucket(movesBucket)
		for _, e := range old {
			if e.Seq, err = moves.NextSequence(); err != nil {
				return err
			}
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := moves.Put(e.key(), b); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close closes the journal.
func (j *Journal) Close() error { return j.db.Close() }

// Put writes e under its token and role.
func (j *Journal) Put(e Entry) error {
	if refuse := j.refuse.Load(); refuse != nil {
		if err := (*refuse)(e); err != nil {
			return fmt.Errorf("writing journal of move %s: %w", e.Token, err)
		}
	}
	e.Changed = time.Now().UTC()
	err := j.db.Update(func(tx *bbolt.Tx) (err error) {
		moves := tx.Bucket(movesBucket)
		var had Entry
		if b := moves.Get(e.key()); b != nil {
			if err := json.Unmarshal(b, &had); err != nil {
				return err
			}
		}
		if e.Seq = had.Seq; e.Seq == 0 {
			if e.Seq, err = moves.NextSequence(); err != nil {
				return err
			}
		}
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return moves.Put(e.key(), b)
	})
	if err != nil {
		return fmt.Errorf("writing journal of move %s: %w", e.Token, err)
	}
	return nil
}

// step writes that a move has come to step s. The entry stays as it was when the
// journal does not take that.
func (j *Journal) step(e *Entry, s Step, of *job) error {
	next := *e
	next.Step, next.Job = s, of.snapshot()
	if err := j.Put(next); err != nil {
		return err
	}
	*e = next
	return nil
}

// key holds the role too, because one gateway may be asked to play both parts.
func (e Entry) key() []byte { return []byte(e.Token + "/" + string(e.Role)) }

// Get returns the entry of a move.
func (j *Journal) Get(token string, role Role) (e Entry, ok bool, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(movesBucket).Get(Entry{Token: token, Role: role}.key())
		if b == nil {
			return nil
		}
		ok = true
		return json.Unmarshal(b, &e)
	})
	if err != nil {
		return e, false, fmt.Errorf("reading journal of move %s: %w", token, err)
	}
	return e, ok, nil
}

// All returns every entry, in no order.
func (j *Journal) All() ([]Entry, error) {
	var all []Entry
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(movesBucket).ForEach(func(k, b []byte) error {
			var e Entry
			if err := json.Unmarshal(b, &e); err != nil {
				return fmt.Errorf("entry %q: %w", k, err)
			}
			all = append(all, e)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading journal: %w", err)
	}
	return all, nil
}

// Superseded tells whether the VM of e has been at the same host since, so that its
// name no longer tells the process that e knew.
func (j *Journal) Superseded(e Entry) (bool, error) {
	e, ok, err := j.Get(e.Token, e.Role)
	if err != nil || !ok {
		return false, err
	}
	all, err := j.All()
	return slices.ContainsFunc(all, func(o Entry) bool {
		// A destination that only waits may yet be refused for what e has left.
		came := o.Role == RoleSource || o.Step == StepStarting || o.Step == StepRunning || o.Step == StepDone
		return came && o.Seq > e.Seq && o.Host == e.Host && o.Spec.VM == e.Spec.VM
	}), err
}

// Trim drops the oldest ended moves beyond keepEnded, but for those that have left
// something.
func (j *Journal) Trim() error {
	all, err := j.All()
	if err != nil {
		return err
	}
	ended := slices.DeleteFunc(oldestEnded(all), func(e Entry) bool { return e.Left })
	if len(ended) <= keepEnded {
		return nil
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		for _, e := range ended[:len(ended)-keepEnded] {
			if err := tx.Bucket(movesBucket).Delete(e.key()); err != nil {
				return fmt.Errorf("trimming journal: %w", err)
			}
		}
		return nil
	})
}
