package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// accept serves every connection by its own goroutine.
func accept(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// control answers requests until the host hangs up.
func (g *guest) control(c net.Conn) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		var req control.Request
		reply := control.Reply{}
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			reply.Error = err.Error()
		} else {
			reply = g.answer(req)
		}
		line, err := json.Marshal(reply)
		if err != nil {
			return
		}
		if _, err := c.Write(append(line, '\n')); err != nil {
			return
		}
	}
}

func (g *guest) answer(req control.Request) control.Reply {
	switch req.Op {
	case control.OpStats:
		return control.Reply{Stats: g.stats()}
	case control.OpVerify:
		return control.Reply{Verdict: g.verify(), Stats: g.stats()}
	case control.OpDirty:
		if req.Dirty == nil || req.Dirty.Rate < 0 || req.Dirty.Hot < 0 || req.Dirty.Disk < 0 {
			return control.Reply{Error: "dirty: rate, hot and disk are needed and not negative"}
		}
		g.dirty.set(*req.Dirty)
		return control.Reply{Stats: g.stats()}
	default:
		return control.Reply{Error: fmt.Sprintf("unknown operation %q", req.Op)}
	}
}

// session sends ticks and returns echoes until the other end hangs up.
func (g *guest) session(c net.Conn) {
	var mu sync.Mutex // one record at a time, so that heartbeats never go back
	send := func(kind byte, seq uint64) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := c.Write(control.Record{Kind: kind, Seq: seq, Beat: g.beat.Load()}.Append(nil))
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(control.Beat * time.Millisecond)
		defer tick.Stop()
		for seq := uint64(1); ; seq++ {
			<-tick.C
			if send(control.Tick, seq) != nil {
				return
			}
		}
	}()
	in := bufio.NewReader(c)
	for {
		r, err := control.ReadRecord(in)
		if err != nil {
			break
		}
		if send(control.Echo, r.Seq) != nil {
			break
		}
	}
	c.Close()
	<-done
}
