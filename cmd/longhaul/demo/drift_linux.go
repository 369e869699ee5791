package demo

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/longhaul-project/longhaul/bench/lab"
)

// measureDrift notes what the gateways hold, after the second move (the first
// round trip) and after every later one.
func (r *runner) measureDrift(ctx context.Context, e *ends, n int) error {
	if n == 0 {
		return nil
	}
	held := map[string]Held{}
	for _, s := range []*lab.Site{r.lab.A, r.lab.B} {
		h, err := e.held(ctx, s)
		if err != nil {
			return fmt.Errorf("looking at the gateway of site %s: %w", s.Name, err)
		}
		held[s.Name] = h
	}
	if r.doc.Drift == nil {
		r.doc.Drift = &Drift{First: held}
	}
	r.doc.Drift.Last = held
	return nil
}

func (e *ends) held(ctx context.Context, s *lab.Site) (h Held, err error) {
	if h.Resident, h.Files, err = e.procs[s.Name].Resident(); err != nil {
		return h, err
	}
	if h.Goroutines, err = goroutines(ctx, s.Dir+"/run/api.sock"); err != nil {
		return h, err
	}
	out, err := s.Command(ctx, "bridge", "fdb", "show").Output()
	if err != nil {
		return h, err
	}
	h.FDB = strings.Count(string(out), "\n")
	return h, nil
}

// goroutines reads go_goroutines of the gateway's metrics.
func goroutines(ctx context.Context, socket string) (int, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(v)
		}
	}
	return 0, fmt.Errorf("metrics without go_goroutines: %s", resp.Status)
}
