package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/api/apitest"
)

var update = flag.Bool("update", false, "write the expected outputs in testdata/script anew")

func TestMain(m *testing.M) {
	os.Setenv("TZ", "UTC") // before anything shows a time
	testscript.Main(m, map[string]func(){"longhaul": main})
}

// TestScripts runs the command against a gateway that keeps state, on a real
// socket. $CAPTURES has streams of real QEMUs. In the scripts:
//
//	lh ARG...                  runs the command inside the test
//	exit CODE lh ARG...   as well; it must end with CODE
//	fake state             prints what the gateway holds
//	fake step JOB          takes a job one step further
//	fake await JOB STATE   waits until it is in that state
//	fake next KIND         waits for the next watch or refusal
//	fake fail KIND         makes every request fail; KIND "none" ends that
//	isjson stdout|stderr   checks that it is one JSON document
//	isjson stdout lines    checks that each line is one
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			captures, err := filepath.Abs(captureDir)
			if err != nil {
				return err
			}
			env.Setenv("CAPTURES", captures)
			env.Setenv("LONGHAUL_SOCKET", filepath.Join(env.WorkDir, "api.sock"))
			return serveFake(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lh":     longhaul,
			"exit":   exitWith,
			"fake":   steerFake,
			"isjson": isJSON,
		},
	})
}

type fakeKey struct{}

func serveFake(env *testscript.Env) error {
	// Not the work directory: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "lh")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "api.sock")
	env.Setenv("LONGHAUL_SOCKET", path)
	ln, err := api.Listen(path, "")
	if err != nil {
		return err
	}
	fake := apitest.New()
	env.Values[fakeKey{}] = fake
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // the one result of Run
	go func() { ended <- api.New(api.Config{Backend: fake}).Run(ctx, ln) }()
	env.Defer(func() {
		cancel()
		<-ended
		os.RemoveAll(dir)
	})
	return nil
}

// longhaul runs the command inside the test: a process each time would take
// most of a minute under the race detector. What needs signals or stdin uses exec.
func longhaul(ts *testscript.TestScript, neg bool, args []string) {
	if got := runInside(ts, args); (got == 0) == neg {
		ts.Fatalf("exit code %d", got)
	}
}

func exitWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "lh" {
		ts.Fatalf("usage: exit CODE lh ARG...")
	}
	if got := fmt.Sprint(runInside(ts, args[2:])); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func runInside(ts *testscript.TestScript, args []string) int {
	a := newApp()
	a.stdin, a.stdout, a.stderr = strings.NewReader(""), ts.Stdout(), ts.Stderr()
	a.getenv = ts.Getenv
	return a.run(args)
}

func steerFake(ts *testscript.TestScript, neg bool, args []string) {
	fake := ts.Value(fakeKey{}).(*apitest.Fake)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	switch strings.Join(args[:1], "") {
	case "state":
		fmt.Fprint(ts.Stdout(), fake)
	case "step":
		ts.Check(fake.Step(args[1]))
	case "await":
		ts.Check(fake.Await(ctx, args[1], gateway.JobState(args[2])))
	case "next":
		ts.Check(fake.Next(ctx, args[1]))
	case "fail":
		kinds := map[string]error{"none": nil, "unavailable": gateway.ErrUnavailable, "other": errors.New("disk on fire")}
		err, ok := kinds[args[1]]
		if !ok {
			ts.Fatalf("unknown kind %s", args[1])
		}
		fake.Fail(err)
	default:
		ts.Fatalf("fake: unknown %q", args)
	}
}

func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: isjson stdout|stderr [lines]")
	}
	docs := []string{ts.ReadFile(args[0])}
	if len(args) > 1 {
		docs = strings.Split(strings.TrimSpace(docs[0]), "\n")
	}
	for _, d := range docs {
		var v any
		if err := json.Unmarshal([]byte(d), &v); (err == nil) == neg {
			ts.Fatalf("%s: %v", args[0], err)
		}
	}
}
