package l2ext

import (
	"log/slog"

	"github.com/longhaul-project/longhaul/internal/loglimit"
)

// LimitLog bounds what a log holds of each kind of line for each segment and peer: what
// peers say and guests send decides how often most of them are due. nil discards. A log
// that is limited is returned as it is. The counts of a segment leave nothing out.
func LimitLog(log *slog.Logger) *slog.Logger { return slog.New(limited(log)) }

func limited(log *slog.Logger) *loglimit.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return loglimit.New(log.Handler(), "segment", "peer")
}
