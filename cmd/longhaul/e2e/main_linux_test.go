package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// childMark makes the test binary the emulator of its own labs.
const childMark = "LONGHAUL_WANEM_CHILD"

// binaryMark tells the tests where TestMain has put longhauld.
const binaryMark = "LONGHAUL_E2E_GATEWAY"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		if err := wanem.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	race := flag.Bool("gateway-race", false, "run gateways with the race detector")
	flag.Parse()
	code, err := withGateway(m, *race)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withGateway runs the tests with a longhauld of this source tree.
func withGateway(m *testing.M, race bool) (code int, err error) {
	if os.Geteuid() != 0 {
		return m.Run(), nil // they skip, or fail for that reason
	}
	dir, err := os.MkdirTemp("", "longhaul-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "longhauld")
	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", path, "../../longhauld")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as "make build" does: most is built already
	if race {
		build = exec.CommandContext(context.Background(), "go", "build", "-race", "-o", path, "../../longhauld")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building longhauld: %w: %s", err, out)
	}
	// For what the tests start; this process has looked at it already.
	if err := errors.Join(os.Setenv(binaryMark, path), os.Setenv(childMark, "1")); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
