package pair

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

// Held looks at the gateway of a site.
func (p *Pair) Held(ctx context.Context, s *lab.Site) (h Held, err error) {
	if h.Resident, h.Files, err = p.Process(s).Resident(); err != nil {
		return h, err
	}
	if h.Goroutines, err = goroutines(ctx, p.Socket(s)); err != nil {
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
