package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/nbd/nbdtest"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// shell runs commands in a directory.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// diskSize is that of newDisks, in bytes: no multiple of a block.
const diskSize = 3<<20 + 512

// newDisks writes disk.raw, with a hole and with zeros that are written; disk.qcow2, which is the same;
// and over.qcow2 over base/disk.qcow2, with more data and a part of it that is zero now. flat.raw is what over.qcow2 is.
func newDisks(t *testing.T, seed byte) (dir string) {
	t.Helper()
	for _, tool := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(tool); err != nil {
			nstest.Skip(t, err.Error()+"; run: apt-get install --no-install-recommends qemu-utils")
		}
	}
	dir = t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	_, one := f.WriteAt(data, 0)
	_, two := f.WriteAt(make([]byte, 1<<19), 2<<20) // zeros; before them a hole
	_, three := f.WriteAt(data[:1<<19+512], diskSize-1<<19-512)
	if err := errors.Join(one, two, three, f.Close()); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, `qemu-img convert -O qcow2 disk.raw disk.qcow2
		mkdir base && cp disk.qcow2 base/
		qemu-img create -q -f qcow2 -b base/disk.qcow2 -F qcow2 over.qcow2
		qemu-io -c "write -P 7 1536k 64k" -c "write -z 64k 128k" over.qcow2 > qemu-io.log
		qemu-img convert -O raw over.qcow2 flat.raw
		rm qemu-io.log`)
	return dir
}

// readFrom reads an image as a seed does.
func readFrom(t *testing.T, name string, from int64) (disk []byte, blocks int, read int64) {
	t.Helper()
	im, err := images{}.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := im.Close(); err != nil {
			t.Error(err)
		}
	}()
	im.From(from)
	disk = make([]byte, im.Size())
	for last := from; ; {
		block, done, err := im.Next(t.Context())
		if done < last || done > im.Size() {
			t.Fatalf("%s: %d bytes are done with after %d, of %d", name, done, last, im.Size())
		}
		last = done
		if errors.Is(err, io.EOF) {
			return disk, blocks, im.Read()
		}
		if err != nil {
			t.Fatal(err)
		}
		if block != nil {
			blocks++
			copy(disk[(done-1)/4096*4096:], block)
		}
	}
}

// Every kind of image is listed, and reads as the disk that it is, also from its middle on. Holes
// are skipped.
func TestImages(t *testing.T) {
	dir := newDisks(t, 1)
	at := func(name string) string { return filepath.Join(dir, name) }
	serve := func(network, name string) string { return nbdtest.Serve(t, network, at(name), "--format=qcow2") }
	for _, c := range []struct {
		name, want string
		most       int64 // bytes that are read; what zeros a server or a file system knows of differs
	}{
		{at("disk.raw"), "disk.raw", diskSize + 4096},
		{at("disk.qcow2"), "disk.raw", 2 << 20},
		{at("over.qcow2"), "flat.raw", 2 << 20},
		{serve("tcp", "disk.qcow2"), "disk.raw", 2 << 20},
		{serve("unix", "over.qcow2"), "flat.raw", 2 << 20},
	} {
		want, err := os.ReadFile(at(c.want))
		if err != nil {
			t.Fatal(err)
		}
		files, err := images{}.List(t.Context(), c.name)
		if err != nil || len(files) != 1 || files[0].Name != c.name {
			t.Fatalf("%s is listed as %+v, %v", c.name, files, err)
		}
		remote := strings.HasPrefix(c.name, "nbd")
		if f := files[0]; remote != (f.Size == 0) || remote != f.Changed.IsZero() || remote != f.Touched.IsZero() {
			t.Errorf("%s is listed as %+v", c.name, f)
		}
		got, blocks, read := readFrom(t, c.name, 0)
		if !bytes.Equal(got, want) || blocks < 300 || blocks > 400 || read < int64(blocks)*4096 || read > c.most {
			t.Errorf("%s: %d blocks, %d bytes read, or another disk", c.name, blocks, read)
		}
		clear(want[:1<<19])
		if got, part, partRead := readFrom(t, c.name, 1<<19); !bytes.Equal(got, want) || part >= blocks || partRead >= read {
			t.Errorf("%s from its middle: %d blocks, %d bytes read, or another disk", c.name, part, partRead)
		}
	}
}

// A directory is the images below it; what cannot be read, and what is no image, is told.
func TestImagesOfDirectory(t *testing.T) {
	dir := newDisks(t, 2)
	shell(t, dir, "echo small > note; ln -s disk.raw link; mkfifo pipe")
	files, err := images{}.List(t.Context(), dir)
	var names []string
	for _, f := range files {
		rel, err := filepath.Rel(dir, f.Name)
		if err != nil || f.Size == 0 || f.Changed.IsZero() || f.Touched.IsZero() {
			t.Errorf("%+v, %v", f, err)
		}
		names = append(names, rel)
	}
	if got := strings.Join(names, " "); err != nil || got != "base/disk.qcow2 disk.qcow2 disk.raw flat.raw over.qcow2" {
		t.Errorf("listed are %s, %v", got, err)
	}
	if _, err := (images{}).List(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	// Of a device only the name is known: writing to it does not change its node.
	if files, err := (images{}).List(t.Context(), "/dev/null"); err != nil || len(files) != 1 || files[0] != (gateway.ImageFile{Name: "/dev/null"}) {
		t.Errorf("a device: %+v, %v", files, err)
	}
	for name, want := range map[string]string{
		filepath.Join(dir, "pipe"):                          "is neither a file nor a block device",
		"nbd+unix:///?socket=" + filepath.Join(dir, "none"): "no such file or directory",
		"nbd+tls://h/x":                                     "nbd",
	} {
		if _, err := (images{}).Open(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// TestSeedWalk seeds every kind of image by the two programs, as an operator does: it is aborted, goes
// on, is cut by a restart of the gateway and goes on by itself.
func TestSeedWalk(t *testing.T) {
	dir := newDisks(t, 3)
	bin := buildBoth(t)
	a, b := newThree(t, bin), newThree(t, bin)
	a.must("init", "--site", "a", "--address", "127.0.0.1:"+a.port, "--dir", a.dir)
	a.serve()
	until(t, "the API", func() (string, bool) { out, err := a.do("status"); return fmt.Sprint(out, err), err == nil })
	b.must("join", a.must("token", "create", "--site", "b", "--ttl", "1h", "--dir", a.dir), "--dir", b.dir, "--address", "127.0.0.1:"+b.port)
	b.serve()
	up := func(p map[string]any) bool { return p["alive"] == true }
	a.status(up)
	b.status(up)

	// 1.5 MiB of 3 is data, of which 0.5 MiB is there twice; the last block is none of a disk's.
	out := a.must("store", "seed", filepath.Join(dir, "disk.qcow2"))
	if !strings.HasPrefix(out, "1 images, 3 MiB read: 385 pages, ") || !strings.Contains(out, "b     done") {
		t.Errorf("a qcow2 file: %s", out)
	}
	export := nbdtest.Serve(t, "unix", filepath.Join(dir, "over.qcow2"), "--format=qcow2")
	if out = a.must("store", "seed", export); !strings.HasPrefix(out, "1 images, 3 MiB read: ") || !strings.Contains(out, " new here") || strings.Contains(out, "before") {
		t.Errorf("an export: %s", out)
	}
	if out = a.must("store", "seed", dir); !strings.Contains(out, "5 images, ") || !strings.Contains(out, " (3 MiB of it before): ") || !strings.Contains(out, ", 0 of them new here") {
		t.Errorf("a directory: %s", out)
	}
	if out = a.must("store", "seed", dir); !strings.Contains(out, " of it before): 0 pages, 0 of them new here") {
		t.Errorf("the directory once more: %s", out)
	}

	big := make([]byte, 48<<20)
	rand.NewChaCha8([32]byte{4}).Read(big)
	file := filepath.Join(t.TempDir(), "big.raw")
	if err := os.WriteFile(file, big, 0o600); err != nil {
		t.Fatal(err)
	}
	id := a.must("store", "seed", file, "--detach", "--read-rate", "80Mbit") // 5 s
	running := func(least int64) func() (string, bool) {
		return func() (string, bool) {
			out, err := a.do("store", "task", "list", "--json")
			task := taskOf(out, id)
			return out, err == nil && task.State == gateway.TaskRunning && task.Done >= least
		}
	}
	until(t, "some of the image", running(8<<20))
	a.must("store", "task", "abort", id)
	until(t, "the end", func() (string, bool) {
		out, err := a.do("store", "task", "list", "--json")
		return out, err == nil && taskOf(out, id).State == gateway.TaskAborted
	})
	id = a.must("store", "seed", file, "--detach", "--read-rate", "80Mbit")
	until(t, "some more of it", running(20<<20))
	watch := exec.CommandContext(t.Context(), filepath.Join(a.bin, "longhaul"), "--socket", filepath.Join(a.run, "api.sock"), "store", "task", "watch", id)
	var said, progress strings.Builder
	shown, err := watch.StderrPipe()
	if watch.Stdout = &said; err != nil || watch.Start() != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(shown)
	if !lines.Scan() || !strings.Contains(lines.Text(), ": reading "+file) || !strings.HasSuffix(lines.Text(), " read before), at most 80 Mbit/s") {
		t.Errorf("while it reads: %s", lines.Text())
	}
	a.stop()
	for lost := false; lines.Scan(); {
		fmt.Fprintln(&progress, lines.Text())
		if !lost && strings.Contains(lines.Text(), "lost the gateway (") { // as it asks now and then only
			lost = true
			a.start()
		}
	}
	if err := watch.Wait(); err != nil || !strings.HasPrefix(said.String(), "1 images, 48 MiB read (") || !strings.Contains(said.String(), "b     done") || !strings.Contains(progress.String(), "lost the gateway (") {
		t.Errorf("over a restart: %v: %s%s", err, &progress, &said)
	}
	all := a.must("store", "task", "list", "--json")
	if task := taskOf(all, id); task.State != gateway.TaskDone || task.Before < 16<<20 || task.Done != 48<<20 || task.ReadRate != 80e6 {
		t.Errorf("over a restart: %+v of %s", task, all)
	}
	if held := b.must("store", "stats", "--json"); !strings.Contains(held, `"received_pages": 12`) { // 48 MiB and what the disks have
		t.Errorf("b holds %s", held)
	}
}

// taskOf finds a task in what `store task list --json` writes.
func taskOf(out, id string) (t gateway.StoreTask) {
	var all []gateway.StoreTask
	if json.Unmarshal([]byte(out), &all) == nil {
		for _, t := range all {
			if t.ID == id {
				return t
			}
		}
	}
	return t
}
