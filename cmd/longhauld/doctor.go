package main

import (
	"context"
	"errors"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
)

// Doctor implements api.Backend.
func (b *backend) Doctor(ctx context.Context) (gateway.Checkup, error) {
	st, err := b.Status(ctx)
	if err != nil {
		return gateway.Checkup{}, err
	}
	segments, err := b.Segments(ctx)
	if err != nil {
		return gateway.Checkup{}, err
	}
	checks := gateway.Examine(time.Now(), st, segments)
	checks = append(append(checks, b.ExamineRoutes()...), b.ExamineStore()...)
	checks = append(checks, examineMachine(ctx)...)
	return gateway.NewCheckup(append(checks, b.CheckPaths(ctx)...)), nil
}

// examineMachine looks at what segments need of the kernel.
func examineMachine(ctx context.Context) []gateway.Check {
	c := gateway.Check{Name: "kernel", State: gateway.CheckOK, Detail: "has all that a segment needs, and the gateway may use it"}
	findings, err := hostnet.Examine(ctx)
	switch {
	case errors.Is(err, hostnet.ErrRights):
		c.State, c.Detail = gateway.CheckWarn, "cannot be tried out without CAP_SYS_ADMIN: "+err.Error()
	case err != nil:
		c.State, c.Detail = gateway.CheckWarn, err.Error()
	case len(findings) > 0:
		c.State, c.Detail = gateway.CheckFail, errors.Join(findings...).Error()
	}
	return []gateway.Check{c}
}
