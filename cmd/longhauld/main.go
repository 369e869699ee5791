// Command longhauld is a site's gateway. It chooses the implementations of
// every part and wires them; the story of a page is in package gateway.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
)

// version is set by the Makefile.
var version = "dev"

const usage = `longhauld is the gateway of a site: it takes part in moves of running VMs.

usage: longhauld [--config FILE]      serve until SIGTERM; SIGHUP reads the
                                      config again
       longhauld --check-config       say whether the config is right, and end
       longhauld --cleanup            remove what a crashed gateway has left in this
                                      machine's network, and end
       longhauld --version

example: longhauld --config /etc/longhaul/longhauld.yaml

exit codes: 0 ended as asked, 1 failed, 2 wrong usage or config
`

// flags of the command line.
type flags struct {
	config                  string
	check, cleanup, version bool
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	f, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "longhauld: %v\n\n%s", err, usage)
		return exitUsage
	}
	switch {
	case f.version:
		fmt.Fprintln(stdout, version)
		return exitOK
	case f.cleanup:
		return report(stderr, exitFailed, hostnet.Cleanup(context.Background(), slog.New(slog.NewTextHandler(stderr, nil))))
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		return report(stderr, exitUsage, err)
	}
	if f.check {
		fmt.Fprintf(stdout, "%s: right\n", f.config)
		return exitOK
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return report(stderr, exitFailed, serve(ctx, f.config, cfg, stderr))
}

func parseFlags(args []string) (flags, error) {
	var f flags
	fs := flag.NewFlagSet("longhauld", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.config, "config", config.DefaultPath, "")
	fs.BoolVar(&f.check, "check-config", false, "")
	fs.BoolVar(&f.cleanup, "cleanup", false, "")
	fs.BoolVar(&f.version, "version", false, "")
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	if fs.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return f, nil
}

// report prints why the command ends, if it ends by a fault.
func report(stderr io.Writer, code int, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "longhauld: %v\n", err)
	return code
}
