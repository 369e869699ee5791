package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	// maxReply is the most bytes that a reply to an option may have: a name
	// and a description are 4 KiB each, by the protocol.
	maxReply = 64 << 10
	// maxReplies is the most replies that one option may get. QEMU sends four.
	maxReplies = 64
	// maxBlock is the largest minimum of a block that the protocol has.
	maxBlock = 64 << 10
)

// handshake brings the connection to its transmission phase.
func (c *Client) handshake(export string) error {
	flags, err := c.greet()
	if err != nil {
		return err
	}
	if err := c.structure(export); err != nil {
		return err
	}
	err = c.enter(export)
	var refused *ServerError
	if errors.As(err, &refused) && refused.Code == replyUnsupported {
		err = c.enterOld(export, flags)
	}
	if err != nil {
		return fmt.Errorf("opening export %q: %w", export, err)
	}
	return c.checkExport()
}

// greet reads the server's greeting and answers it.
func (c *Client) greet() (flags uint16, err error) {
	var b [18]byte
	if err := c.full(b[:]); err != nil {
		return 0, fmt.Errorf("reading greeting: %w", err)
	}
	if magic := binary.BigEndian.Uint64(b[:]); magic != magicServer {
		return 0, fmt.Errorf("greeting begins with %#016x: no NBD server", magic)
	}
	switch magic := binary.BigEndian.Uint64(b[8:]); magic {
	case magicOption:
	case magicOldstyle:
		return 0, errors.New("the server speaks the oldstyle handshake; want newstyle")
	default:
		return 0, fmt.Errorf("greeting goes on with %#016x: no NBD server", magic)
	}
	flags = binary.BigEndian.Uint16(b[16:])
	if flags&flagFixedNewstyle == 0 {
		return 0, fmt.Errorf("greeting has flags %#x; want fixed newstyle", flags)
	}
	flags &= flagFixedNewstyle | flagNoZeroes
	return flags, c.send(binary.BigEndian.AppendUint32(nil, uint32(flags)))
}

// structure asks for structured replies and, if there are, for allocation.
func (c *Client) structure(export string) error {
	err := c.ask(optionStructuredReply, nil, nil)
	var refused *ServerError
	if errors.As(err, &refused) {
		return nil // then without
	} else if err != nil {
		return fmt.Errorf("asking for structured replies: %w", err)
	}
	c.structured = true
	query := text(nil, export)
	query = binary.BigEndian.AppendUint32(query, 1)
	query = text(query, allocation)
	err = c.ask(optionSetMetaContext, query, func(kind uint32, b []byte) error {
		if kind == replyMetaContext && len(b) >= 4 && string(b[4:]) == allocation {
			c.context, c.hasContext = binary.BigEndian.Uint32(b), true
		}
		return nil
	})
	if errors.As(err, &refused) {
		c.hasContext = false
		return nil
	} else if err != nil {
		return fmt.Errorf("asking for %s: %w", allocation, err)
	}
	return nil
}

// enter asks for the export with GO.
func (c *Client) enter(export string) error {
	data := text(nil, export)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, infoBlockSize)
	told := false
	err := c.ask(optionGo, data, func(kind uint32, b []byte) error {
		if kind != replyInfo || len(b) < 2 {
			return nil
		}
		switch info := binary.BigEndian.Uint16(b); {
		case info == infoExport && len(b) == 12:
			told = true
			c.setExport(b[2:])
		case info == infoBlockSize && len(b) == 14:
			c.minBlock, c.maxRead = binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[10:])
		case info == infoExport || info == infoBlockSize:
			return fmt.Errorf("information %d of %d bytes", info, len(b))
		}
		return nil
	})
	if err == nil && !told {
		return errors.New("server does not tell the size")
	}
	return err
}

// enterOld asks for the export with EXPORT_NAME, which has no framed reply: a
// server that has no such export hangs up.
func (c *Client) enterOld(export string, flags uint16) error {
	if err := c.send(option(nil, optionExportName, []byte(export))); err != nil {
		return err
	}
	b := make([]byte, 10+124)
	if flags&flagNoZeroes != 0 {
		b = b[:10]
	}
	if err := c.full(b); err != nil {
		return fmt.Errorf("reading size (the server may not have the export): %w", err)
	}
	c.setExport(b)
	return nil
}

func (c *Client) setExport(b []byte) {
	c.bytes, c.flags = binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:])
}

// checkExport refuses what the server says of the export and cannot be.
func (c *Client) checkExport() error {
	switch {
	case c.bytes > math.MaxInt64-maxBlock:
		return fmt.Errorf("export of %d bytes", c.bytes)
	case c.flags&flagHasFlags == 0:
		return fmt.Errorf("export with flags %#x", c.flags)
	case c.minBlock&(c.minBlock-1) != 0 || c.minBlock > maxBlock:
		return fmt.Errorf("export with blocks of at least %d bytes", c.minBlock)
	}
	c.align = int64(max(c.minBlock, pageSize))
	c.most = min(maxSpan, int64(c.maxRead)) / c.align * c.align
	if c.maxRead == 0 { // not told: 32 MiB is safe, by the protocol
		c.most = maxSpan
	}
	if c.most == 0 {
		return fmt.Errorf("export with blocks of %d to %d bytes; want reads of at least %d", c.minBlock, c.maxRead, c.align)
	}
	return nil
}

// ask sends an option and hands its replies to take until the last one, which
// is an acknowledgement, or an error as *ServerError.
func (c *Client) ask(kind uint32, data []byte, take func(kind uint32, b []byte) error) error {
	if err := c.send(option(nil, kind, data)); err != nil {
		return err
	}
	for range maxReplies {
		reply, b, err := c.optionReply(kind)
		switch {
		case err != nil:
			return err
		case reply == replyAck:
			return nil
		case reply&replyError != 0:
			return &ServerError{reply, printable(b)}
		case take != nil:
			if err := take(reply, b); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("more than %d replies", maxReplies)
}

func (c *Client) optionReply(kind uint32) (reply uint32, b []byte, err error) {
	var head [20]byte
	if err := c.full(head[:]); err != nil {
		return 0, nil, fmt.Errorf("reading reply: %w", err)
	}
	magic, to := binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint32(head[8:])
	reply, n := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
	switch {
	case magic != magicReply:
		return 0, nil, fmt.Errorf("reply begins with %#016x", magic)
	case to != kind:
		return 0, nil, fmt.Errorf("reply to option %d; want %d", to, kind)
	case n > maxReply:
		return 0, nil, fmt.Errorf("reply of %d bytes; want at most %d", n, maxReply)
	}
	b = make([]byte, n)
	if err := c.full(b); err != nil {
		return 0, nil, fmt.Errorf("reading reply of %d bytes: %w", n, err)
	}
	return reply, b, nil
}
