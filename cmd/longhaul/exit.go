package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/client"
)

// Exit codes. Scripts depend on them: append, never renumber.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitConflict    = 5
	exitJobFailed   = 6
	exitInDoubt     = 7
	exitInterrupted = 130
)

// exitTopic is "longhaul help exit-codes".
const exitTopic = `Exit codes of all commands:

    0  done
    1  failed, for a reason that has no code of its own
    2  wrong usage: a flag, an argument or a value that makes no sense
    3  no gateway answers at the socket
    4  not found: no such VM, job, site, forward or segment
    5  conflict: the name is taken, the VM has a job already, or the job is
       in a state in which this cannot be done
    6  the move failed or was aborted; the VM runs at its source
    7  the move is in doubt: both copies are paused and an operator has to
       decide ("longhaul job show" says what is safe)
  130  interrupted

With --json, an error is one line of JSON on stderr: error, code, exit_code.`

var (
	errInterrupted = errors.New("interrupted")

	// errShown ends a command that has said already what is wrong.
	errShown = errors.New("shown already")
)

// A usageError is the operator's mistake.
type usageError struct {
	err     error
	command string // whose help tells more
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// A jobError is a move that did not succeed.
type jobError struct{ job gateway.Job }

func (e *jobError) Error() string {
	j := e.job
	switch j.State {
	case gateway.JobAborted:
		return fmt.Sprintf("%s was aborted: %s runs at %s", j.ID, j.VM, j.From)
	case gateway.JobInDoubt:
		return fmt.Sprintf("%s is in doubt: %s is paused at both sites: %s\n"+
			"safe: %s\nlonghaul job recover %s --run source|destination", j.ID, j.VM, j.Error, j.Safe, j.ID)
	}
	return fmt.Sprintf("%s failed: %s runs at %s: %s", j.ID, j.VM, j.From, j.Error)
}

// exitCode is the one table that turns errors into exit codes.
func exitCode(err error) int {
	var usage *usageError
	var job *jobError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), errors.Is(err, gateway.ErrInvalid):
		return exitUsage
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &job) && job.job.State == gateway.JobInDoubt:
		return exitInDoubt
	case errors.As(err, &job):
		return exitJobFailed
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, gateway.ErrNotFound):
		return exitNotFound
	case errors.Is(err, gateway.ErrBusy), errors.Is(err, gateway.ErrExists):
		return exitConflict
	}
	return exitFailed
}

// codeName is the code in JSON: the API's own where there is one.
func codeName(err error) string {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Code
	}
	switch exitCode(err) {
	case exitUsage:
		return "usage"
	case exitUnreachable:
		return "unreachable"
	case exitJobFailed:
		return "job-failed"
	case exitInDoubt:
		return "in-doubt"
	case exitInterrupted:
		return "interrupted"
	}
	return "failed"
}

// cleanLines is an error's text, which may have several lines, for a terminal: parts of it
// come from names of files, from hypervisors and from peers.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = clean(l)
	}
	return strings.Join(lines, "\n  ")
}

// report tells the operator what went wrong and returns the exit code.
func report(w io.Writer, asJSON bool, err error) int {
	code := exitCode(err)
	if err == nil || errors.Is(err, errShown) {
		return code
	}
	if asJSON {
		_ = json.NewEncoder(w).Encode(struct { // stderr is gone; nobody to tell
			Error string `json:"error"`
			Code  string `json:"code"`
			Exit  int    `json:"exit_code"`
		}{err.Error(), codeName(err), code})
		return code
	}
	fmt.Fprintln(w, "longhaul: "+cleanLines(err.Error()))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(w, "  see %s --help\n", usage.command)
	}
	if errors.Is(err, client.ErrUnreachable) {
		fmt.Fprintln(w, "  is longhauld running? (systemctl status longhauld; --socket or LONGHAUL_SOCKET names another socket)")
	}
	return code
}
