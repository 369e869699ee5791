// Command record records the streams of bench/streams that the cache lacks,
// and prints where all of them are.
//
//	go run ./bench/streams/record [-dir DIR] [-short] [-only deb1-calm,...]
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/longhaul-project/longhaul/bench/streams"
)

func main() {
	var o streams.Options
	flag.StringVar(&o.Dir, "dir", streams.Dir(), "cache of streams")
	flag.BoolVar(&o.Short, "short", false, "one minute of work instead of ten")
	flag.Func("only", "record no others of the streams that are missing, as deb1-calm,deb1-back", func(s string) error {
		o.Only = strings.Split(s, ",")
		return nil
	})
	flag.Parse()
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := streams.Record(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
	for _, s := range all {
		fmt.Println(s.Path, s.Bytes)
	}
}
