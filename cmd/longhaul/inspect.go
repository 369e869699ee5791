package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/cmd/longhaul/inspect"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

const inspectLong = `Looks at captured migration streams: of what pages they consist, and how many
bytes are left of them if they are compressed as a whole, if only zero pages and
duplicates are taken out, and if Longhaul carries them. What Longhaul would send is
decoded again, with a store of its own, and compared byte by byte.

A FILE is what QEMU sent on one connection, such as "migrate exec:cat>FILE" in its
monitor writes; it may be compressed with gzip, and hold several of precopy in a row.
"-" is stdin. What is no stream of QEMU is carried as opaque bytes, and reported so.

Several FILEs are several moves to the same peer, one after the other: the peer knows
then what the files before have left in its store. --store-memory bounds that, as
store.memory does in a gateway's config; half of it is for pages of one direction. The
command takes up to three times as much memory, with several files up to six times, and
some hundred MiB.

With --to SITE the peer is that site, and knows before the first FILE what the content
store of this gateway holds with it on disk. --store DIR looks there, and not where this
gateway says that its stores are: the store directory in a gateway's dir, or one of the
stores in it, or a copy. The store is read where it lies; nothing in it is changed, and
a gateway that uses it goes on. What the peer has lost of it counts as known; what is
not on disk yet, and what one site has of its own, such as images that have not crossed,
does not. Up to half of --store-memory is for pages that are new. The command takes up to
nine times as much memory then, and 50 MiB for each GiB of the store.

A line that is thin beside the cores of both gateways gets fewer bytes: Longhaul uses
what "job show" calls fold there, and press on the thinnest. --press tells how many that
leaves, and takes its time: about 0.6 s of a core for each MiB of pages that are new, on
all cores. It takes a third as much memory again.

Pages are told apart by 64-bit fingerprints, so their numbers are estimates. Above
32 GiB of different pages only a sample is counted, and the report says so; whether a
page has changed only a little is looked up in a sample of 256 MiB.

Exit codes: 0 if all files were looked at; 1 if one or the store cannot be read, if
one is empty or is damaged gzip, or if what was decoded is not the same; 2 for wrong
usage; 3 if there is no gateway to ask where the store is; 130 for Ctrl-C. The files
before the one that failed are reported all the same.`

const inspectExample = `  longhaul inspect db1.stream
  longhaul inspect web1.stream.gz web2.stream.gz --store-memory 4GiB
  longhaul inspect db1.stream db1-back.stream --press
  longhaul inspect db1.stream --to b
  longhaul inspect db1.stream --store /var/lib/longhaul/store --to b
  ssh kvm1 'cat db1.stream' | longhaul inspect - --json | jq '.files[].methods'`

func (a *app) inspectCmd() *cobra.Command {
	memory := conffile.Size(inspect.DefaultStore)
	press := false
	var held heldStore
	c := &cobra.Command{
		Use:     "inspect FILE...",
		Short:   "What is in a captured stream and what reduction would save",
		Long:    inspectLong,
		Example: inspectExample,
		GroupID: "use",
		Args:    captures,
	}
	c.Flags().Var(&memory, "store-memory", "memory of the store of each site")
	c.Flags().BoolVar(&press, "press", false, "tell also what the thinnest lines get, which takes long")
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		if memory < minStore {
			return &usageError{fmt.Errorf("--store-memory: %s is too little: at least %s", memory, conffile.Size(minStore)), c.CommandPath()}
		}
		if held.Tenant != "" && !held.asked() {
			return &usageError{errors.New("--tenant is of a store: --to or --store is missing"), c.CommandPath()}
		}
		return a.inspect(ctx, inspect.Options{Store: int64(memory), Press: press}, &held, args)
	})
	a.heldFlags(c, &held)
	return c
}

// gcPercent is how much garbage may gather, as a share of what is in use.
const gcPercent = 20

// minStore is the smallest store that there is, in bytes.
const minStore = 8 << 20

// captures checks the arguments of inspect.
func captures(c *cobra.Command, args []string) error {
	stdin := 0
	for _, name := range args {
		if name == "-" {
			stdin++
		}
	}
	switch {
	case len(args) == 0:
		return &usageError{errors.New("FILE is missing"), c.CommandPath()}
	case stdin > 1:
		return &usageError{errors.New("stdin can be read only once"), c.CommandPath()}
	}
	return nil
}

// inspection is the document of inspect.
type inspection struct {
	StoreMemory int64          `json:"store_memory_bytes"` // of each site
	Store       *heldStore     `json:"store,omitempty"`    // what the peer knows before the first of the files
	Files       []inspect.File `json:"files"`
	Total       *inspect.Total `json:"total,omitempty"` // of several files
}

// inspect looks at all files and shows those at which it could look. A file
// that is not there is found before the first of the others is read.
func (a *app) inspect(ctx context.Context, o inspect.Options, held *heldStore, names []string) error {
	for _, name := range names {
		if err := isCapture(name); err != nil {
			return err
		}
	}
	// Stores are large and hold no pointers: to collect garbage is cheap, and
	// to wait until there is as much of it as of them is not.
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	doc := inspection{StoreMemory: o.Store, Files: []inspect.File{}}
	in := inspect.New(o)
	defer in.Close()
	var err error
	if held.asked() {
		if err = a.know(ctx, in, held); err != nil {
			return err
		}
		if doc.Store = held; !a.json {
			if err = writeHeld(a.stdout, held); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		var f inspect.File
		if f, err = a.inspectFile(ctx, in, name); err != nil {
			break
		}
		doc.Files = append(doc.Files, f)
		if a.json {
			continue
		}
		if err = writeCapture(a.stdout, f, doc.known()); err != nil {
			break
		}
	}
	if len(doc.Files) > 1 {
		t := inspect.Sum(doc.Files)
		doc.Total = &t
	}
	if len(doc.Files) == 0 {
		return err
	}
	return errors.Join(err, a.show(doc, func(w io.Writer) error { return writeTotal(w, doc) }))
}

// known is what the peer knows before the last of the files; "" if it knows nothing.
func (d *inspection) known() string {
	switch before := len(d.Files) > 1; {
	case d.Store != nil && before:
		return "the store and the files before"
	case d.Store != nil:
		return "the store"
	case before:
		return "the files before"
	}
	return ""
}

func isCapture(name string) error {
	if name == "-" {
		return nil
	}
	st, err := os.Stat(name)
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%s is a directory", name)
	}
	return err
}

// inspectFile looks at one file, and shows how far it is.
func (a *app) inspectFile(ctx context.Context, in *inspect.Inspector, name string) (inspect.File, error) {
	r, size, err := a.openCapture(ctx, name)
	if err != nil {
		return inspect.File{}, err
	}
	defer r.Close()
	p := &progress{r: &abandoner{ctx, r}, w: a.stderr, name: captureName(name), size: size, width: a.width(), began: time.Now()}
	f, err := in.Inspect(ctx, name, p)
	p.clear()
	if err != nil {
		return f, fmt.Errorf("%s: %w", captureName(name), err)
	}
	return f, nil
}

// captureName is a file as people read it.
func captureName(name string) string {
	if name == "-" {
		return "stdin"
	}
	return clean(name)
}

// openCapture opens a file or stdin. size is 0 when nobody knows it.
func (a *app) openCapture(ctx context.Context, name string) (r io.ReadCloser, size int64, err error) {
	if name == "-" {
		r = io.NopCloser(a.stdin)
		if f, ok := a.stdin.(*os.File); ok {
			size = regularSize(f)
		}
		return r, size, nil
	}
	// To open a named pipe takes until somebody writes to it.
	f, err := abandon(ctx, func() (*os.File, error) { return os.Open(name) })
	if err != nil {
		return nil, 0, err
	}
	return f, regularSize(f), nil
}

func regularSize(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}

// abandon waits for f until ctx ends. A read of a terminal or a pipe cannot
// be woken on every system; so f may go on, until the process ends, and nobody
// looks at what it does.
func abandon[T any](ctx context.Context, f func() (T, error)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1) // so that f can end when nobody waits
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

// An abandoner reads until ctx ends, after which the buffer must not be used.
type abandoner struct {
	ctx context.Context
	r   io.Reader
}

func (a *abandoner) Read(b []byte) (int, error) {
	if err := context.Cause(a.ctx); err != nil {
		return 0, err
	}
	return abandon(a.ctx, func() (int, error) { return a.r.Read(b) })
}
