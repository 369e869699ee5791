package ccslot

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/internal/ackhandler"
	"github.com/quic-go/quic-go/internal/congestion"
	"github.com/quic-go/quic-go/internal/monotime"
	"github.com/quic-go/quic-go/internal/protocol"
	"github.com/quic-go/quic-go/internal/utils"
)

// errShape: quic-go is not as this package was written for. Read slot.go
// against its new source.
var errShape = errors.New("quic-go has changed")

// Install makes c the congestion controller of the connection of tr whose
// context has the value token for key. To be called inside VerifyConnection of
// that connection, once. After an error the connection keeps NewReno.
func Install(tr *quic.Transport, key, token any, c Controller) error {
	conn, err := find(tr, key, token)
	if err != nil {
		return err
	}
	f, err := field[ackhandler.SentPacketHandler](conn, "sentPacketHandler")
	if err != nil {
		return err
	}
	h := &handler{SentPacketHandler: *f, algorithm: &algorithm{c: c}}
	if err := h.put(); err != nil {
		return err
	}
	*f = h
	return nil
}

// Check tries everything that Install relies on, short of a handshake.
func Check() error {
	tr := new(quic.Transport)
	if _, err := field[sync.Mutex](tr, "mutex"); err != nil {
		return err
	}
	if f := reflect.ValueOf(tr).Elem().FieldByName("handlers"); f.Kind() != reflect.Map || f.Type().Elem().Kind() != reflect.Interface {
		return fmt.Errorf("%w: Transport.handlers is no map of connections", errShape)
	}
	if _, err := field[ackhandler.SentPacketHandler](new(quic.Conn), "sentPacketHandler"); err != nil {
		return err
	}
	stock := ackhandler.NewSentPacketHandler(0, protocol.MinInitialPacketSize, utils.NewRTTStats(), new(utils.ConnectionStats),
		true, false, nil, protocol.PerspectiveClient, nil, utils.DefaultLogger)
	seen := new(probe)
	h := &handler{SentPacketHandler: stock, algorithm: &algorithm{c: seen}}
	if err := h.put(); err != nil {
		return err
	}
	h.MigratedPath(monotime.Now(), protocol.MinInitialPacketSize)
	if h.SendMode(monotime.Now()); seen.asked == 0 {
		return fmt.Errorf("%w: it does not ask the controller that it was given", errShape)
	}
	return nil
}

// find looks for a connection by its context.
func find(tr *quic.Transport, key, token any) (*quic.Conn, error) {
	mu, err := field[sync.Mutex](tr, "mutex")
	if err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	handlers := open(reflect.ValueOf(tr).Elem().FieldByName("handlers"))
	if handlers.Kind() != reflect.Map {
		return nil, fmt.Errorf("%w: Transport.handlers is no map", errShape)
	}
	for it := handlers.MapRange(); it.Next(); {
		if c := connOf(it.Value()); c != nil && c.Context().Value(key) == token {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: the transport does not have the connection", errShape)
}

// connOf is the connection inside a packet handler, or nil: one that is closed
// already has none.
func connOf(v reflect.Value) *quic.Conn {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	f := v.FieldByName("Conn")
	if !f.IsValid() || !f.CanInterface() {
		return nil
	}
	c, _ := f.Interface().(*quic.Conn)
	return c
}

// A handler is a connection's sentPacketHandler that keeps our controller.
type handler struct {
	ackhandler.SentPacketHandler
	algorithm *algorithm
}

// put makes the wrapped handler ask our controller from now on.
func (h *handler) put() error {
	f, err := field[congestion.SendAlgorithmWithDebugInfos](h.SentPacketHandler, "congestion")
	if err != nil {
		return err
	}
	*f = h.algorithm
	return nil
}

// MigratedPath puts our controller in again, in place of the NewReno that
// quic-go begins on a new path with.
func (h *handler) MigratedPath(now monotime.Time, size protocol.ByteCount) {
	h.SentPacketHandler.MigratedPath(now, size)
	if h.put() == nil { // it went well before, so it does now
		h.algorithm.c.Migrated()
		h.algorithm.SetMaxDatagramSize(size)
	}
}

// field is the field of *ptr that has that name and exactly type T.
func field[T any](ptr any, name string) (*T, error) {
	v := reflect.ValueOf(ptr)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("%w: %T is no struct", errShape, ptr)
	}
	f := v.Elem().FieldByName(name)
	if !f.IsValid() || f.Type() != reflect.TypeFor[T]() {
		return nil, fmt.Errorf("%w: %T has no %s of type %v", errShape, ptr, name, reflect.TypeFor[T]())
	}
	return open(f).Addr().Interface().(*T), nil
}

// open gives access to an unexported field of an addressable struct.
func open(f reflect.Value) reflect.Value {
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}
