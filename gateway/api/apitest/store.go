package apitest

import (
	"context"
	"fmt"
	"strings"

	"github.com/longhaul-project/longhaul/gateway"
)

// A task of a Fake ends after as many looks at it as it has steps.
const taskSteps = 3

// StoreReport tells of one peer and of no images, but those that were seeded.
func (f *Fake) StoreReport(context.Context) (gateway.StoreReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := gateway.StoreReport{
		Dir: "/var/lib/longhaul/store",
		Peers: []gateway.PeerStore{{
			Site: "b", Agreed: true, Pages: 65536, SentPages: 60000, ReceivedPages: 5536, Segments: 256,
			Memory: 200 << 20, MemoryBudget: 512 << 20, Disk: 256 << 20, Budget: 16 << 30,
			Index: 3 << 20, Anchors: 6 << 20, Hits: 812345, Claims: 1024, Hints: 300, Evicted: 2, Damaged: 1,
		}, {Site: "c", Pages: 512, SentPages: 500, ReceivedPages: 12, Segments: 3, Disk: 2 << 20}},
		Left:   []gateway.LeftStore{{Site: "d", Tenant: "red", Dir: "/var/lib/longhaul/store/_tenants/red/d", Disk: 3 << 30}},
		Images: gateway.ImageStore{Budget: 16 << 30, Dirs: []string{"/srv/templates"}},
		Total:  gateway.StoreStatus{Pages: 66048, Bytes: 259 << 20, Budget: 32 << 30, Memory: 200 << 20, Disk: 258 << 20},
	}
	for _, t := range f.tasks {
		r.Images.Pages += t.Fresh
		r.Images.Disk += t.Fresh << 12
	}
	r.Images.Segments = (r.Images.Pages + 255) / 256
	return r, f.fail
}

// Seed starts a task. A source whose name contains "bad" fails, one with "slow"
// goes on until it is aborted; of one with "again" a third was read before.
func (f *Fake) Seed(_ context.Context, r gateway.SeedRequest) (gateway.StoreTask, error) {
	for _, s := range r.Sources {
		if err := gateway.CheckSource(s); err != nil {
			return gateway.StoreTask{}, err
		}
	}
	t := gateway.StoreTask{Kind: gateway.TaskSeed, Sources: r.Sources, Phase: "reading " + r.Sources[0], Total: 3 << 20, ReadRate: r.ReadRate}
	if strings.Contains(r.Sources[0], "again") {
		t.Done, t.Before = 1<<20, 1<<20
	}
	if !r.Local {
		t.Peers = []gateway.TaskPeer{{Site: "b", State: "sending", Total: 3 << 20, Left: 3 << 20}}
	}
	return f.addTask(t)
}

// VerifyStore starts a task.
func (f *Fake) VerifyStore(context.Context) (gateway.StoreTask, error) {
	return f.addTask(gateway.StoreTask{Kind: gateway.TaskVerify, Phase: "reading what site b holds as well", Total: 3 << 20})
}

func (f *Fake) addTask(t gateway.StoreTask) (gateway.StoreTask, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return gateway.StoreTask{}, f.fail
	}
	t.ID, t.State, t.Started = fmt.Sprintf("store-%d", len(f.tasks)+1), gateway.TaskRunning, Epoch()
	f.tasks = append(f.tasks, t)
	return t, nil
}

// StoreTasks lists the tasks.
func (f *Fake) StoreTasks(context.Context) ([]gateway.StoreTask, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]gateway.StoreTask(nil), f.tasks...), f.fail
}

// StoreTask gives one task, after it has come a step further.
func (f *Fake) StoreTask(_ context.Context, id string) (gateway.StoreTask, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.task(id)
	if err != nil {
		return gateway.StoreTask{}, err
	}
	if t.State == gateway.TaskRunning {
		f.stepTask(t)
	}
	return *t, nil
}

// task finds a task. The caller holds mu.
func (f *Fake) task(id string) (*gateway.StoreTask, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	for i := range f.tasks {
		if f.tasks[i].ID == id {
			return &f.tasks[i], nil
		}
	}
	return nil, fmt.Errorf("task %q of the store: %w", id, gateway.ErrNotFound)
}

func (f *Fake) stepTask(t *gateway.StoreTask) {
	names := strings.Join(t.Sources, " ")
	if strings.Contains(names, "slow") && t.Done > 0 {
		f.happen("slow")
		return
	}
	t.Done += t.Total / taskSteps
	if t.Kind == gateway.TaskVerify {
		t.Segments++
	} else {
		t.Pages += 256
		t.Fresh += 200
	}
	if t.Done < t.Total {
		return
	}
	ended := Epoch()
	t.State, t.Phase, t.Ended = gateway.TaskDone, "", &ended
	switch {
	case strings.Contains(names, "bad"):
		t.State, t.Error = gateway.TaskFailed, "image "+t.Sources[0]+": is neither a file nor a block device"
	case t.Kind == gateway.TaskVerify:
		t.Damaged, t.Dropped, t.Mended = 3, 1, 2
	default:
		t.Files = len(t.Sources)
	}
	for i := range t.Peers {
		t.Peers[i] = gateway.TaskPeer{Site: "b", State: "done", Total: 3 << 20, Claims: 700, Sent: 68, Wire: 120_000}
	}
}

// AbortStoreTask ends a task.
func (f *Fake) AbortStoreTask(_ context.Context, id string) (gateway.StoreTask, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.task(id)
	if err != nil {
		return gateway.StoreTask{}, err
	}
	if t.State != gateway.TaskRunning {
		return *t, fmt.Errorf("task %s has ended: %w", id, gateway.ErrBusy)
	}
	ended := Epoch()
	t.State, t.Phase, t.Ended, t.Error = gateway.TaskAborted, "", &ended, "aborted by an operator"
	return *t, nil
}
