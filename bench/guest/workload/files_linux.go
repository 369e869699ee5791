package main

import (
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// files are those of the initramfs. They live in the page cache and move with
// the guest's memory, so reading them proves pages that the kernel keeps.
type files struct{ sum map[string]uint32 }

func readFiles(roots ...string) (*files, error) {
	f := &files{sum: make(map[string]uint32)}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			f.sum[path], err = checksum(path)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func checksum(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := crc32.NewIEEE()
	_, err = io.Copy(h, f)
	return h.Sum32(), err
}

func (f *files) verify(v *control.Verdict) {
	for path, want := range f.sum {
		v.FilesVerified++
		if got, err := checksum(path); err != nil || got != want {
			v.FilesWrong++
			note(v, "file %s: checksum %#x, not %#x (%v)", path, got, want, err)
		}
	}
}
