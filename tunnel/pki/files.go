package pki

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// DefaultDir is where a gateway keeps its identity.
const DefaultDir = "/etc/longhaul/pki"

// Names of the files in the state directory.
const (
	fileCACert   = "ca.crt"
	fileCAKey    = "ca.key"
	fileSiteCert = "site.crt"
	fileSiteKey  = "site.key"
	fileNextKey  = "site.key.next" // of a renewal that is not finished
	fileRevoked  = "revoked"
	fileUsed     = "used"
)

// maxFile is the most bytes that are read of any of the files. Certificates
// have some 500 bytes; the lists are limited to maxBody.
const maxFile = 256 << 10

// writeFile replaces a file such that a crash leaves the old or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: more than %d bytes", path, maxFile)
	}
	return data, err
}

func writeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// readKey reads a key, and refuses one that others may read, as ssh does.
func readKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %#o lets others read the key; chmod 600 it", path, mode)
	}
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	k, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: key is %T, want Ed25519", path, key)
	}
	return k, nil
}

func writeCert(path string, der []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func readCert(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no %s in PEM", path, kind)
	}
	return block.Bytes, nil
}

// writePair replaces certificate and key such that a crash leaves a pair:
// the rename of site.crt decides, and readPair finds the key that fits.
func writePair(dir string, cert *x509.Certificate, key ed25519.PrivateKey) error {
	next := filepath.Join(dir, fileNextKey)
	if err := writeKey(next, key); err != nil {
		return err
	}
	if err := writeCert(filepath.Join(dir, fileSiteCert), cert.Raw); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(dir, fileSiteKey)); err != nil {
		return err
	}
	return syncDir(dir)
}

// readPair reads certificate and key, and finishes a renewal that was cut.
func readPair(dir string) (*x509.Certificate, ed25519.PrivateKey, error) {
	cert, err := readCert(filepath.Join(dir, fileSiteCert))
	if err != nil {
		return nil, nil, err
	}
	path, next := filepath.Join(dir, fileSiteKey), filepath.Join(dir, fileNextKey)
	key, err := readKey(path)
	if err == nil && fits(cert, key) {
		return cert, key, nil
	}
	if nextKey, err := readKey(next); err == nil && fits(cert, nextKey) {
		return cert, nextKey, errors.Join(os.Rename(next, path), syncDir(dir))
	}
	if err == nil {
		err = fmt.Errorf("%s: key is not that of %s", path, fileSiteCert)
	}
	return nil, nil, err
}

func fits(cert *x509.Certificate, key ed25519.PrivateKey) bool {
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	return ok && pub.Equal(key.Public())
}
