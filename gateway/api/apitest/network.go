package apitest

import (
	"context"
	"fmt"
	"slices"

	"github.com/longhaul-project/longhaul/gateway"
)

// Forwards lists what was added.
func (f *Fake) Forwards(ctx context.Context) ([]gateway.Forward, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.forwards), f.fail
}

// AddForward adds a forward to site b.
func (f *Fake) AddForward(ctx context.Context, w gateway.Forward) (gateway.Forward, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return w, f.fail
	}
	if w.To != "b" {
		return w, fmt.Errorf("forward to %q: %w", w.To, gateway.ErrNoSite)
	}
	if slices.ContainsFunc(f.forwards, func(o gateway.Forward) bool { return o.Name == w.Name }) {
		return w, fmt.Errorf("forward %q: %w", w.Name, gateway.ErrExists)
	}
	f.forwards = append(f.forwards, w)
	return w, nil
}

// RemoveForward removes a forward.
func (f *Fake) RemoveForward(ctx context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	i := slices.IndexFunc(f.forwards, func(o gateway.Forward) bool { return o.Name == name })
	if i < 0 {
		return fmt.Errorf("forward %q: %w", name, gateway.ErrNotFound)
	}
	f.forwards = slices.Delete(f.forwards, i, i+1)
	return nil
}

// Segments lists what was added.
func (f *Fake) Segments(ctx context.Context) ([]gateway.Segment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.segments), f.fail
}

// Segment finds a segment.
func (f *Fake) Segment(ctx context.Context, name string) (gateway.Segment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return gateway.Segment{}, f.fail
	}
	for _, s := range f.segments {
		if s.Name == name {
			return s, nil
		}
	}
	return gateway.Segment{}, fmt.Errorf("segment %q: %w", name, gateway.ErrNotFound)
}

// AddSegment adds a segment with one binding on it.
func (f *Fake) AddSegment(ctx context.Context, s gateway.Segment) (gateway.Segment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return s, f.fail
	}
	if slices.ContainsFunc(f.segments, func(o gateway.Segment) bool { return o.Name == s.Name || o.VNI == s.VNI }) {
		return s, fmt.Errorf("segment %q: %w", s.Name, gateway.ErrExists)
	}
	s.Device = fmt.Sprintf("lhvx%d", s.VNI)
	s.Bindings = []gateway.Binding{{
		MAC: "52:54:00:00:00:01", IPs: []string{"10.0.0.5"}, Site: "a", Seq: 3, State: "confirmed",
	}}
	if s.Policy.Streams != "" { // else its sites do not say what their lines do
		for _, site := range s.Sites {
			s.Streams = append(s.Streams, gateway.SegmentStream{Site: site, On: s.Policy.Streams != "off", Why: "the segment's policy", Loss: 0.001})
		}
	}
	f.segments = append(f.segments, s)
	return s, nil
}

// ClearMAC clears a MAC that a segment has.
func (f *Fake) ClearMAC(ctx context.Context, segment, mac string) error {
	s, err := f.Segment(ctx, segment)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(s.Bindings, func(b gateway.Binding) bool { return b.MAC == mac }) {
		return fmt.Errorf("MAC %s: %w", mac, gateway.ErrNotFound)
	}
	return nil
}

// RemoveSegment removes a segment.
func (f *Fake) RemoveSegment(ctx context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	i := slices.IndexFunc(f.segments, func(o gateway.Segment) bool { return o.Name == name })
	if i < 0 {
		return fmt.Errorf("segment %q: %w", name, gateway.ErrNotFound)
	}
	f.segments = slices.Delete(f.segments, i, i+1)
	return nil
}

// UnstretchSegment removes a segment when it is forced: one host depends on it, and a site cannot be asked.
func (f *Fake) UnstretchSegment(ctx context.Context, name string, r gateway.UnstretchRequest) (gateway.Unstretched, error) {
	if _, err := f.Segment(ctx, name); err != nil {
		return gateway.Unstretched{}, err
	}
	out := gateway.Unstretched{Name: name, Cut: r.Force, Dependents: []gateway.Dependent{{
		MAC: "52:54:00:00:00:02", IPs: []string{"10.0.0.6"}, Site: "b", Why: "has moved to site b and is away from home",
	}}, Unheard: []string{"c"}}
	if !r.Force {
		return out, nil
	}
	return out, f.RemoveSegment(ctx, name)
}

// CaptureSegment writes the header of an empty file and, if frames are asked
// for, as many bytes.
func (f *Fake) CaptureSegment(ctx context.Context, name string, r gateway.CaptureRequest, write func([]byte) error) error {
	if _, err := f.Segment(ctx, name); err != nil {
		return err
	}
	if err := write([]byte("pcap")); err != nil {
		return err
	}
	for i := range int64(r.Frames) {
		if r.Bytes > 0 && i+4 == r.Bytes {
			return nil
		}
		if err := write([]byte(".")); err != nil {
			return err
		}
	}
	if r.Frames == 0 {
		<-ctx.Done()
	}
	return nil
}

// Doctor finds fault with a link while the fake has one that is down.
func (f *Fake) Doctor(ctx context.Context) (gateway.Checkup, error) {
	st, err := f.Status(ctx)
	if err != nil {
		return gateway.Checkup{}, err
	}
	segments, err := f.Segments(ctx)
	if err != nil {
		return gateway.Checkup{}, err
	}
	return gateway.NewCheckup(gateway.Examine(st.Since, st, segments)), nil
}
