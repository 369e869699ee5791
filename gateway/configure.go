package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/longhaul-project/longhaul/l2ext"
)

// Configure stretches the segments of the config, all with one wish: what an earlier gateway
// has left of one that is not in a wish goes, with the frames that the kernel carries. It is for
// who has added none yet, and takes none as well: then all that was left goes. The answer has
// an element for each, which says why it is not stretched; the others are.
func (l *Layer2) Configure(ctx context.Context, all []Segment) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := make([]error, len(all))
	next := slices.Clone(l.wished)
	for i, s := range all {
		more, err := l.with(next, s)
		if errs[i] = err; err == nil {
			next = more
			l.note(s)
		}
	}
	if err := l.m.Apply(ctx, next); err != nil { // each could be made, by what is known: it is the host, which is tried again
		for i := range errs {
			errs[i] = cmp.Or(errs[i], err)
		}
	}
	l.wished = next
	return errs
}

// with adds a segment to what is wished, or says why that cannot be. It needs l.mu.
func (l *Layer2) with(wished []l2ext.Segment, s Segment) ([]l2ext.Segment, error) {
	for _, w := range wished {
		switch {
		case w.Name == s.Name:
			return nil, fmt.Errorf("segment %s: %w", s.Name, ErrExists)
		case w.VNI == s.VNI:
			return nil, fmt.Errorf("VNI %d, of segment %s: %w", s.VNI, w.Name, ErrExists)
		}
	}
	for _, site := range s.Sites {
		if !nameRule.MatchString(site) {
			return nil, fmt.Errorf("site %q of segment %s: small letters, digits and hyphens, at most 63: %w", site, s.Name, ErrInvalid)
		}
	}
	policy, err := s.Policy.Policy()
	if err != nil {
		return nil, err
	}
	next := append(slices.Clone(wished), l2ext.Segment{
		Name: s.Name, VNI: s.VNI, Bridge: s.Bridge, VLAN: s.VLAN, MTU: s.MTU, Sites: s.Sites, Mode: l2ext.Mode(s.Mode), Policy: policy,
		Everywhere: s.Everywhere,
	})
	if err := l.m.Check(next); err != nil {
		return nil, fmt.Errorf("%v: %w", err, ErrInvalid)
	}
	return next, nil
}

// note keeps what of a segment l2ext does not. It needs l.mu.
func (l *Layer2) note(s Segment) {
	l.policies[s.Name] = s.Policy
	if len(s.Policy.HostRoute) > 0 { // else what an earlier one has made goes by its own
		l.hooks[s.Name] = s.Policy.HostRoute
	}
}

func (l *Layer2) addSegment(ctx context.Context, s Segment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := l.with(l.wished, s)
	if err != nil {
		return err
	}
	l.note(s)
	if err := l.m.Apply(ctx, next); err != nil {
		delete(l.policies, s.Name)
		return errors.Join(fmt.Errorf("%v: %w", err, ErrInvalid), l.m.Apply(ctx, l.wished))
	}
	l.wished = next
	return nil
}
