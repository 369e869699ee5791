package reduction

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// peer is a compressor of whole streams that knows nothing of pages.
type peer struct {
	name   string
	writer func(io.Writer) (io.WriteCloser, error)
	reader func(io.Reader) (io.Reader, error)
}

// peers that are libraries. They use one goroutine, as our path does here.
func peers() []peer {
	return []peer{
		{"zstd -1", newZstd(zstd.SpeedFastest), readZstd},
		{"zstd -3", newZstd(zstd.SpeedDefault), readZstd},
		{"lz4", newLZ4, func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
	}
}

func newZstd(level zstd.EncoderLevel) func(io.Writer) (io.WriteCloser, error) {
	return func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	}
}

func readZstd(r io.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
}

func newLZ4(w io.Writer) (io.WriteCloser, error) {
	z := lz4.NewWriter(w)
	return z, z.Apply(lz4.ConcurrencyOption(1))
}

// measure compresses a stream, expands it again and compares.
func (p peer) measure(c Case) (Row, error) {
	row := Row{Case: c.Name, Method: p.name, Raw: int64(len(c.Stream))}
	var packed bytes.Buffer
	var err error
	row.Encode, err = spent(func() error {
		w, err := p.writer(&packed)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, bytes.NewReader(c.Stream))
		return errors.Join(err, w.Close())
	})
	if err != nil {
		return row, fmt.Errorf("%s: %w", p.name, err)
	}
	row.Left = int64(packed.Len())
	check := comparer{rest: c.Stream}
	row.Decode, err = spent(func() error {
		r, err := p.reader(&packed)
		if err != nil {
			return err
		}
		_, err = io.Copy(&check, r)
		return err
	})
	row.Decode -= check.took
	if err == nil && len(check.rest) > 0 {
		err = errDiffers
	}
	return row, err
}

// comparer takes only what it expects.
type comparer struct {
	rest []byte
	took time.Duration
}

func (c *comparer) Write(b []byte) (int, error) {
	start := processor()
	defer func() { c.took += processor() - start }()
	if len(b) > len(c.rest) || !bytes.Equal(b, c.rest[:len(b)]) {
		return 0, errDiffers
	}
	c.rest = c.rest[len(b):]
	return len(b), nil
}

// longName is zstd with a window of 2 GiB, as a program: the libraries have no
// such window.
const longName = "zstd -3 --long=31"

// long measures what a case adds to what crossed before it, if one zstd carried all
// of it, in that order: what is more than 2 GiB back is out of its window. Its time is
// that of all, in proportion: the difference of two runs would drown in their noise.
func long(ctx context.Context, c Case) (Row, error) {
	row := Row{Case: c.Name, Method: longName, Raw: int64(len(c.Stream))}
	var before int64
	var err error
	if c.before() > 0 {
		if before, _, err = runLong(ctx, c.Before...); err != nil {
			return row, err
		}
	}
	all, took, err := runLong(ctx, append(slices.Clip(c.Before), c.Stream)...)
	row.Left = all - before
	row.Encode = time.Duration(float64(took) * float64(len(c.Stream)) / float64(c.before()+len(c.Stream)))
	return row, err
}

// runLong compresses the streams as one, and tells how many bytes and how much
// processor time it took.
func runLong(ctx context.Context, streams ...[]byte) (int64, time.Duration, error) {
	var in []io.Reader
	for _, s := range streams {
		in = append(in, bytes.NewReader(s))
	}
	var out counter
	cmd := exec.CommandContext(ctx, "zstd", "-3", "--long=31", "--single-thread", "-q", "-c")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.MultiReader(in...), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("running zstd (Debian package zstd): %w", err)
	}
	return int64(out), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
