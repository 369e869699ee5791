package api

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	requests *prometheus.CounterVec // by operation and status
	watchers prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longhaul_api_requests_total",
			Help: "Requests that reached the backend, by operation and HTTP status (200 for every success).",
		}, []string{"operation", "status"}),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longhaul_api_watchers",
			Help: "Clients that watch a job now.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.watchers)
	}
	return m
}

// count takes the error that the client is given. The labels are few: the
// operations are fixed and the statuses are those of classify.
func (m *metrics) count(operation string, err error) {
	status := http.StatusOK
	var p huma.StatusError
	if errors.As(err, &p) {
		status = p.GetStatus()
	}
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
}

// MetricsHandler shows g in Prometheus's format, for a listener that offers
// nothing else.
func MetricsHandler(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		// Two at once is a scrape and a person; more are told to come back.
		MaxRequestsInFlight: 2,
		Timeout:             callTimeout,
	})
}
