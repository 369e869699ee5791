package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// enrolTime bounds the try of one address, so that a dead one among several
// does not use up all of joinTimeout.
const enrolTime = 15 * time.Second

// enrol asks the founding gateway to let us in, at each address that the
// token names until one answers.
func enrol(ctx context.Context, req pki.Request) (*pki.Joined, error) {
	var errs []error
	for _, addr := range req.Token.Addrs {
		joined, err := enrolAt(ctx, addr, req)
		if err == nil {
			return joined, nil
		}
		errs = append(errs, fmt.Errorf("joining at %s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func enrolAt(ctx context.Context, addr string, req pki.Request) (*pki.Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	conn, err := tunnel.DialEnrol(ctx, nil, addr, req.Token.TLS())
	if err != nil {
		return nil, fmt.Errorf("%w; does longhauld run there, and is its port open?", err)
	}
	joined, err := pki.Enrol(ctx, conn, req)
	_ = conn.Close() // the answer is here, or it will not come
	return joined, err
}
