package guest

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// sources of the workload. They import nothing outside the standard library
// and each other.
//
//go:embed workload/*.go pages/*.go control/*.go
var sources embed.FS

// sourceModule is the module path under which the sources import each other.
const sourceModule = "github.com/longhaul-project/longhaul"

func goVersion() string { return runtime.Version() }

// buildWorkload compiles the workload from the embedded sources.
func buildWorkload(ctx context.Context, cache string) (program []byte, err error) {
	tool, err := findGo()
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(cache, ".workload-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := unpackSources(tmp); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, tool, "build", "-trimpath", "-ldflags", "-s -w", "-o", "program", "./bench/guest/workload")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compiling the workload: %w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(tmp, "program"))
}

// unpackSources lays the embedded sources out as a module of their own.
func unpackSources(dir string) error {
	err := fs.WalkDir(sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !isSource(path, d) {
			return err
		}
		b, err := sources.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, "bench", "guest", path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		return fmt.Errorf("unpacking the workload: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module "+sourceModule+"\n\ngo 1.26.0\n"), 0o644)
}

// isSource tells what belongs to the program.
func isSource(path string, d fs.DirEntry) bool {
	return !d.IsDir() && !strings.HasSuffix(path, "_test.go")
}

// findGo finds the Go tool in the path or where its archive is usually unpacked.
func findGo() (string, error) {
	if path, err := exec.LookPath("go"); err == nil {
		return path, nil
	}
	const usual = "/usr/local/go/bin/go"
	if _, err := os.Stat(usual); err != nil {
		return "", errors.New("the guest's workload is compiled on this machine and needs the go tool, which is not in the path")
	}
	return usual, nil
}
