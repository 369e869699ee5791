package hvtest

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/longhaul-project/longhaul/internal/page"
)

// A loader loads the main channel after its first eight bytes.
type loader struct {
	*streamReader
	in   *incoming
	back net.Conn // the return path

	block string // named last
	cpu   cpuState
}

func (l *loader) load() error {
	for {
		elem := l.u8()
		if l.err != nil {
			return fmt.Errorf("loading: %w", l.err)
		}
		var err error
		switch elem {
		case elemConfig:
			l.skip(int(l.u32()), 256)
		case elemCommand:
			err = l.command()
		case elemStart, elemFull, elemPart, elemEnd:
			err = l.section(elem)
		case elemEOF:
			return l.vmDesc()
		default:
			err = fmt.Errorf("element %#x", elem)
		}
		if err == nil {
			err = l.err
		}
		if err != nil {
			return fmt.Errorf("loading: %w", err)
		}
	}
}

func (l *loader) vmDesc() error {
	if elem := l.u8(); elem != elemVMDesc {
		return fmt.Errorf("loading: element %#x after the end: %w", elem, l.err)
	}
	l.skip(int(l.u32()), 1<<20)
	return l.err
}

func (l *loader) command() error {
	cmd, length := l.u16(), l.u16()
	if cmd != cmdPing || length != 4 {
		l.skip(int(length), 1<<16)
		return nil
	}
	pong := binary.BigEndian.AppendUint32([]byte{0, rpPong, 0, 4}, l.u32())
	if _, err := l.back.Write(pong); err != nil {
		return fmt.Errorf("answering a ping: %w", err)
	}
	return nil
}

func (l *loader) section(elem byte) error {
	id := l.u32()
	if elem == elemStart || elem == elemFull {
		l.cstr()
		l.u32()
		l.u32()
	}
	switch id {
	case ramSection:
		if err := l.ram(); err != nil {
			return err
		}
	case vgaSection:
		l.skip(vgaSize, vgaSize)
	case cpuSection:
		l.cpu.epoch = l.u64()
		l.full(l.cpu.digest[:])
	default:
		return fmt.Errorf("section %d", id)
	}
	if foot, same := l.u8(), l.u32(); l.err == nil && (foot != elemFooter || same != id) {
		return fmt.Errorf("section %d has no footer", id)
	}
	return l.err
}

func (l *loader) ram() error {
	data := make([]byte, page.Size)
	for l.err == nil {
		word := l.u64()
		offset, flags := word&^ramFlags, word&ramFlags
		switch flags &^ ramContinue {
		case ramEOS:
			return l.in.syncChannels()
		case ramMemSize:
			l.memSize(int64(offset))
			continue
		case ramPage, ramZero:
		default:
			return fmt.Errorf("word %#x: %w", word, l.err)
		}
		if flags&ramContinue == 0 {
			l.block = l.cstr()
		}
		if flags&ramZero != 0 {
			l.u8()
			clear(data)
		} else {
			l.full(data)
		}
		if l.err != nil {
			return l.err
		}
		if err := l.in.p.store(l.block, offset, data); err != nil {
			return err
		}
	}
	return l.err
}

func (l *loader) memSize(total int64) {
	for _, want := range l.in.p.guest.blocks() {
		name, size := l.cstr(), int64(l.u64())
		if l.err == nil && (name != want.name || size != want.size) {
			l.err = fmt.Errorf("block %s of %d bytes, want %s of %d", name, size, want.name, want.size)
		}
		total -= size
	}
	if l.err == nil && total != 0 {
		l.err = fmt.Errorf("blocks are %d bytes short of the total", total)
	}
}
