package cluster

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
)

// logWriter passes memberlist's log on, at debug: what an operator should know
// of it, Run logs itself.
type logWriter struct{ log *slog.Logger }

// Write takes one line.
func (w logWriter) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte(snapshotName)) {
		_, line, _ := strings.Cut(strings.TrimSpace(string(b)), "memberlist: ")
		w.log.Debug("memberlist", "line", line)
	}
	return len(b), nil
}

func memberlistLogger(l *slog.Logger) *log.Logger { return log.New(logWriter{l}, "", 0) }
