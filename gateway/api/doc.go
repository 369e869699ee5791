// Package api serves a gateway's HTTP API on a unix socket. The CLI, scripts
// and (later) the web page are its clients; package client is the Go one.
//
//	GET    /v1/status                  GET  /v1/doctor
//	GET    /v1/vms
//	GET    /v1/jobs                    POST /v1/jobs          starts a move
//	GET    /v1/jobs/{id}               GET  /v1/jobs/{id}/events
//	POST   /v1/jobs/{id}/abort         POST /v1/jobs/{id}/recover
//	PUT    /v1/jobs/{id}/rate
//	GET    /v1/forwards                POST /v1/forwards
//	DELETE /v1/forwards/{name}
//	GET    /v1/segments                POST /v1/segments
//	GET    /v1/segments/{name}         DELETE /v1/segments/{name}
//	GET    /v1/segments/{name}/capture
//	POST   /v1/segments/{name}/unstretch
//	POST   /v1/segments/{name}/bindings/{mac}/clear
//	POST   /v1/links/{site}/test       GET  /v1/links/{site}/test how it stands
//	DELETE /v1/links/{site}/test       ends it
//	GET    /v1/store
//	POST   /v1/store/seed              POST /v1/store/verify  each starts a task
//	GET    /v1/store/tasks
//	GET    /v1/store/tasks/{id}        POST /v1/store/tasks/{id}/abort
//	POST   /v1/tokens                  POST /v1/sites/{site}/revoke
//	POST   /v1/reload
//	GET    /openapi.json /openapi.yaml /metrics
//
// Who may open the socket may do everything: its file mode is the access
// control, as with Docker's. By hand:
//
//	curl --unix-socket /run/longhaul/api.sock http://longhaul/v1/status
//
// # Errors
//
// An error is an RFC 9457 problem document. Its type is "urn:longhaul:problem:"
// followed by a code that never changes: no-vm, no-job, no-site, not-found (404),
// busy, exists (409), invalid (422), too-large (413), unavailable (503),
// timeout (504), internal (500).
//
// # Events
//
// /v1/jobs/{id}/events answers with server-sent events (text/event-stream; HTML
// standard, section 9.2), because a browser reads them without code and curl -N
// without a parser. Each "job" event carries the whole job, so that a client
// that was away needs no history. The first comes at once. A slow client misses
// states in between, never the newest. An "end" event says that the job has
// ended and nothing more will come; a stream that ends without it was cut.
// A comment every 15 seconds keeps a silent stream apart from a dead gateway.
package api
