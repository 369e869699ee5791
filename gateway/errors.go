package gateway

import "errors"

// What callers decide by. The API turns each into a problem document with a
// stable code, and the CLI turns that into an exit code; so wrap them, and
// keep the wrapped text fit for an operator.
var (
	// ErrNotFound: there is nothing of that name. The three below are kinds of it.
	ErrNotFound = errors.New("not found")

	// ErrNoVM: no host of this site has such a VM.
	ErrNoVM error = &kind{"no such VM", ErrNotFound}

	// ErrNoJob: this gateway knows no such job.
	ErrNoJob error = &kind{"no such job", ErrNotFound}

	// ErrNoSite: no peer of this gateway is at such a site.
	ErrNoSite error = &kind{"no such site", ErrNotFound}

	// ErrBusy: the VM already has a job, or the job is in a state in which
	// it cannot do what was asked.
	ErrBusy = errors.New("busy")

	// ErrExists: the name is taken.
	ErrExists = errors.New("exists already")

	// ErrInvalid: the request makes no sense, or the config forbids it.
	ErrInvalid = errors.New("not valid")

	// ErrUnavailable: it cannot be done now; later it may. Such as a link
	// that is down or a hypervisor that does not answer.
	ErrUnavailable = errors.New("not available")
)

// A kind is a sentinel that is a special case of another.
type kind struct {
	text  string
	super error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.super }
