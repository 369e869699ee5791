// Package client speaks a gateway's API over its unix socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
)

const (
	dialTimeout = 5 * time.Second  // the socket is local; longer means a stopped gateway
	callTimeout = 40 * time.Second // a little more than the server gives its backend
	maxAnswer   = 64 << 20         // bytes of one answer: about 100 000 VMs
)

// A Client talks to one gateway. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the gateway behind the socket. It does not connect yet.
func New(socket string) *Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", socket)
			if err != nil && ctx.Err() == nil {
				return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
			}
			return conn, err
		},
		DisableCompression: true,
		MaxIdleConns:       2,
	}}}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends in, if not nil, and reads the answer into out, if not nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSilent)
	defer cancel()
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the gateway's answer: %w", err)
	}
	return nil
}

// send returns an answer whose status is a success; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("writing the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	// The host is a matter of form: the transport knows one place only.
	req, err := http.NewRequestWithContext(ctx, method, "http://longhaul"+path, body)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, readProblem(resp)
	}
	return resp, nil
}

// explain strips what net/http wraps around an error of the socket.
func (c *Client) explain(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("asking the gateway at %s: %w", c.socket, cause)
	}
	var op *net.OpError
	if errors.Is(err, ErrUnreachable) && errors.As(err, &op) {
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.socket, op.Err)
	}
	return fmt.Errorf("asking the gateway at %s: %w", c.socket, err)
}

// Status tells what is up.
func (c *Client) Status(ctx context.Context) (out gateway.Status, err error) {
	return out, c.do(ctx, "GET", "/v1/status", nil, &out)
}

// Doctor has the gateway look at itself, its machine and its links.
func (c *Client) Doctor(ctx context.Context) (out gateway.Checkup, err error) {
	return out, c.do(ctx, "GET", "/v1/doctor", nil, &out)
}

// VMs lists the VMs of the site.
func (c *Client) VMs(ctx context.Context) (out []gateway.VMInfo, err error) {
	return out, c.do(ctx, "GET", "/v1/vms", nil, &out)
}

// Migrate starts a move.
func (c *Client) Migrate(ctx context.Context, r gateway.MigrateRequest) (out gateway.Job, err error) {
	return out, c.do(ctx, "POST", "/v1/jobs", r, &out)
}

// Jobs lists the jobs, the newest last.
func (c *Client) Jobs(ctx context.Context) (out []gateway.Job, err error) {
	return out, c.do(ctx, "GET", "/v1/jobs", nil, &out)
}

// Job finds a job.
func (c *Client) Job(ctx context.Context, id string) (out gateway.Job, err error) {
	return out, c.do(ctx, "GET", "/v1/jobs/"+url.PathEscape(id), nil, &out)
}

// AbortJob ends a move; the VM goes on at its source.
func (c *Client) AbortJob(ctx context.Context, id string) (out gateway.Job, err error) {
	return out, c.do(ctx, "POST", "/v1/jobs/"+url.PathEscape(id)+"/abort", nil, &out)
}

// RecoverJob ends a job in doubt; where is api.RecoverSource or
// api.RecoverDestination.
func (c *Client) RecoverJob(ctx context.Context, id, where string) (out gateway.Job, err error) {
	return out, c.do(ctx, "POST", "/v1/jobs/"+url.PathEscape(id)+"/recover", api.RecoverRequest{Run: where}, &out)
}

// SetJobRate caps a move, in bits per second; 0 lifts the cap.
func (c *Client) SetJobRate(ctx context.Context, id string, bps int64) (out gateway.Job, err error) {
	return out, c.do(ctx, "PUT", "/v1/jobs/"+url.PathEscape(id)+"/rate", api.RateRequest{Rate: bps}, &out)
}

// Forwards lists the fixed ports.
func (c *Client) Forwards(ctx context.Context) (out []gateway.Forward, err error) {
	return out, c.do(ctx, "GET", "/v1/forwards", nil, &out)
}

// AddForward adds a fixed port.
func (c *Client) AddForward(ctx context.Context, f gateway.Forward) (out gateway.Forward, err error) {
	return out, c.do(ctx, "POST", "/v1/forwards", f, &out)
}

// RemoveForward removes a fixed port.
func (c *Client) RemoveForward(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/v1/forwards/"+url.PathEscape(name), nil, nil)
}

// Segments lists the stretched segments.
func (c *Client) Segments(ctx context.Context) (out []gateway.Segment, err error) {
	return out, c.do(ctx, "GET", "/v1/segments", nil, &out)
}

// Segment finds a segment.
func (c *Client) Segment(ctx context.Context, name string) (out gateway.Segment, err error) {
	return out, c.do(ctx, "GET", "/v1/segments/"+url.PathEscape(name), nil, &out)
}

// AddSegment stretches a segment from this site.
func (c *Client) AddSegment(ctx context.Context, s gateway.Segment) (out gateway.Segment, err error) {
	if s.Sites == nil {
		s.Sites = []string{}
	}
	s.Bindings = []gateway.Binding{} // read-only, but part of the document
	return out, c.do(ctx, "POST", "/v1/segments", s, &out)
}

// RemoveSegment stops stretching a segment.
func (c *Client) RemoveSegment(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/v1/segments/"+url.PathEscape(name), nil, nil)
}

// ClearMAC lets a MAC go where it is next seen.
func (c *Client) ClearMAC(ctx context.Context, segment, mac string) error {
	return c.do(ctx, "POST", "/v1/segments/"+url.PathEscape(segment)+"/bindings/"+url.PathEscape(mac)+"/clear", nil, nil)
}

// UnstretchSegment ends a segment at this site.
func (c *Client) UnstretchSegment(ctx context.Context, name string, r gateway.UnstretchRequest) (out gateway.Unstretched, err error) {
	return out, c.do(ctx, "POST", "/v1/segments/"+url.PathEscape(name)+"/unstretch", r, &out)
}

// CaptureSegment copies the frames of a segment to w, as a pcap file, until ctx
// ends, w fails, or there are as many as were asked for.
func (c *Client) CaptureSegment(ctx context.Context, name string, r gateway.CaptureRequest, w io.Writer) error {
	q := url.Values{"snap": {fmt.Sprint(r.Snap)}, "frames": {fmt.Sprint(r.Frames)}, "bytes": {fmt.Sprint(r.Bytes)}}
	if r.Only != "" {
		q.Set("only", r.Only)
	}
	resp, err := c.send(ctx, "GET", "/v1/segments/"+url.PathEscape(name)+"/capture?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("capturing segment %s: %w", name, err)
	}
	return nil
}

// StartLinkTest begins to measure what the link to a site carries.
func (c *Client) StartLinkTest(ctx context.Context, site string) (out gateway.LinkTest, err error) {
	return out, c.do(ctx, "POST", "/v1/links/"+url.PathEscape(site)+"/test", nil, &out)
}

// LinkTest is the newest test of the link to a site.
func (c *Client) LinkTest(ctx context.Context, site string) (out gateway.LinkTest, err error) {
	return out, c.do(ctx, "GET", "/v1/links/"+url.PathEscape(site)+"/test", nil, &out)
}

// StopLinkTest ends the test of the link to a site.
func (c *Client) StopLinkTest(ctx context.Context, site string) error {
	return c.do(ctx, "DELETE", "/v1/links/"+url.PathEscape(site)+"/test", nil, nil)
}

// Store tells what the content stores hold.
func (c *Client) Store(ctx context.Context) (out gateway.StoreReport, err error) {
	return out, c.do(ctx, "GET", "/v1/store", nil, &out)
}

// Seed starts to seed images.
func (c *Client) Seed(ctx context.Context, r gateway.SeedRequest) (out gateway.StoreTask, err error) {
	return out, c.do(ctx, "POST", "/v1/store/seed", r, &out)
}

// VerifyStore starts to read all that is on disk.
func (c *Client) VerifyStore(ctx context.Context) (out gateway.StoreTask, err error) {
	return out, c.do(ctx, "POST", "/v1/store/verify", nil, &out)
}

// StoreTasks lists the tasks on the store, the newest last.
func (c *Client) StoreTasks(ctx context.Context) (out []gateway.StoreTask, err error) {
	return out, c.do(ctx, "GET", "/v1/store/tasks", nil, &out)
}

// StoreTask finds a task.
func (c *Client) StoreTask(ctx context.Context, id string) (out gateway.StoreTask, err error) {
	return out, c.do(ctx, "GET", "/v1/store/tasks/"+url.PathEscape(id), nil, &out)
}

// AbortStoreTask ends a task; what it has done stays done.
func (c *Client) AbortStoreTask(ctx context.Context, id string) (out gateway.StoreTask, err error) {
	return out, c.do(ctx, "POST", "/v1/store/tasks/"+url.PathEscape(id)+"/abort", nil, &out)
}

// CreateToken makes a join token; a ttl of 0 is an hour.
func (c *Client) CreateToken(ctx context.Context, site string, ttl time.Duration) (out api.Token, err error) {
	in := api.TokenRequest{Site: site, TTL: int64(ttl / time.Second)}
	return out, c.do(ctx, "POST", "/v1/tokens", in, &out)
}

// Revoke shuts a site's gateways out for good.
func (c *Client) Revoke(ctx context.Context, site string) error {
	return c.do(ctx, "POST", "/v1/sites/"+url.PathEscape(site)+"/revoke", nil, nil)
}

// Reload makes the gateway read its config again; it tells which keys wait for a
// restart.
func (c *Client) Reload(ctx context.Context) (out api.Reloaded, err error) {
	return out, c.do(ctx, "POST", "/v1/reload", nil, &out)
}
