// Package nbdtest runs QEMU's NBD server for tests.
package nbdtest

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// Serve runs a qemu-nbd on an image until the test ends, and gives the URI of
// the export without a name. network is "tcp" or "unix". Where there is no
// qemu-nbd the test is skipped.
func Serve(tb testing.TB, network, image string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath("qemu-nbd"); err != nil {
		nstest.Skip(tb, err.Error()+"; run: apt-get install --no-install-recommends qemu-utils")
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(tb.TempDir(), "nbd")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		tb.Fatal(err)
	}
	// The socket is handed over as systemd would, so it listens before the
	// server runs, and no port has to be guessed.
	args = append([]string{"-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec qemu-nbd "$@"`, "sh", "--persistent", "--read-only",
		"--shared=8"}, append(args, image)...)
	cmd := exec.Command("sh", args...)
	cmd.ExtraFiles = []*os.File{file} // descriptor 3
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	file.Close()
	tb.Cleanup(func() {
		l.Close()
		cmd.Process.Kill()
		cmd.Wait()
		if tb.Failed() && said.Len() > 0 {
			tb.Logf("%s of %s: %s", cmd.Path, image, said.Bytes())
		}
	})
	if network == "unix" {
		return "nbd+unix:///?socket=" + url.QueryEscape(address)
	}
	return "nbd://" + l.Addr().String() + "/"
}
