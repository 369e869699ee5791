package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

const (
	maxEvent = 1 << 20          // bytes of one event; a real one is about 2 KiB
	silence  = 50 * time.Second // three signs of life missed
)

// WatchJob calls each with every state of the job that it learns of, until the
// job has ended (nil), each returns an error (that error), ctx is done, or the
// stream is cut (ErrCut: ask again, or ask for the job).
func (c *Client) WatchJob(ctx context.Context, id string, each func(gateway.JobEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	resp, err := c.send(ctx, "GET", "/v1/jobs/"+url.PathEscape(id)+"/events", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	alive := func() { quiet.Reset(silence) }
	err = readEvents(resp.Body, alive, each)
	if err != nil && ctx.Err() != nil && errors.Is(err, ErrCut) {
		return fmt.Errorf("watching job %s: %w", id, context.Cause(ctx))
	}
	return err
}

// readEvents parses server-sent events as far as our server writes them: one
// "event" and one "data" line per event, comments, an empty line after each.
// Unknown fields and events are skipped, as the standard says.
func readEvents(r io.Reader, alive func(), each func(gateway.JobEvent) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var event string
	var data []byte
	for lines.Scan() {
		alive()
		line := lines.Bytes()
		if len(line) > 0 {
			field, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimPrefix(value, []byte(" "))
			switch string(field) {
			case "event":
				event = string(value)
			case "data":
				data = append(data[:0], value...)
			}
			continue
		}
		if event == "end" {
			return nil
		}
		if event == "job" {
			if err := deliver(data, each); err != nil {
				return err
			}
		}
		event, data = "", data[:0]
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrCut, err)
	}
	return ErrCut
}

func deliver(data []byte, each func(gateway.JobEvent) error) error {
	var ev gateway.JobEvent
	if err := json.Unmarshal(data, &ev); err != nil {
		return fmt.Errorf("reading an event of the gateway: %w", err)
	}
	return each(ev)
}
