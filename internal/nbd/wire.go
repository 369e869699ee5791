package nbd

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
)

// Magic numbers.
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOldstyle   = 0x00420281861253
	magicReply      = 0x0003e889045565a9 // to an option
	magicRequest    = 0x25609513
	magicExtended   = 0x21e41c71 // a request with a length of 64 bits
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef
)

// Flags of the handshake, of both sides.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Options.
const (
	optionExportName      = 1
	optionStartTLS        = 5
	optionGo              = 7
	optionStructuredReply = 8
	optionSetMetaContext  = 10
)

// Types of replies to options, and what GO tells.
const (
	replyAck         = 1
	replyInfo        = 3
	replyMetaContext = 4
	replyError       = 1 << 31 // with a reason
	replyUnsupported = replyError + 1

	infoExport    = 0
	infoBlockSize = 3
)

// Requests.
const (
	commandRead        = 0
	commandWrite       = 1
	commandDisconnect  = 2
	commandTrim        = 4
	commandWriteZeroes = 6
	commandBlockStatus = 7

	flagPayload = 1 << 5 // of an extended request: the length is that of data that follows it
)

// Structured replies.
const (
	chunkDone = 1 << 0 // flag: the last one for this request

	chunkNone        = 0
	chunkData        = 1
	chunkHole        = 2
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1
	chunkErrorOffset = 1<<15 + 2
	chunkIsError     = 1 << 15 // bit of the type
)

const (
	flagHasFlags = 1 << 0 // of an export

	allocation = "base:allocation"
	stateZero  = 1 << 1 // of a span in allocation: reads as zero
)

// request appends a request without data.
func request(b []byte, command uint16, cookie uint64, off int64, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// option appends an option.
func option(b []byte, kind uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, kind)
	return text(b, data)
}

// text appends bytes with their number before them.
func text[T string | []byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// A ServerError is what a server answered to a request or an option.
type ServerError struct {
	Code    uint32 // an errno, or the type of the reply to an option
	Message string // of the server; "" is none
}

func (e *ServerError) Error() string {
	s := "server says " + codeName(e.Code)
	if e.Message != "" {
		s += fmt.Sprintf(" (%s)", e.Message)
	}
	return s
}

func codeName(code uint32) string {
	for _, c := range codes {
		if c.code == code {
			return c.name
		}
	}
	if code >= replyError {
		return fmt.Sprintf("error %d", code-replyError)
	}
	return fmt.Sprintf("error %d", code)
}

var codes = [...]struct {
	code uint32
	name string
}{
	{1, "EPERM"}, {5, "EIO"}, {12, "ENOMEM"}, {22, "EINVAL"}, {28, "ENOSPC"}, {75, "EOVERFLOW"}, {95, "ENOTSUP"},
	{108, "ESHUTDOWN"},
	{replyError + 1, "unsupported"}, {replyError + 2, "forbidden by policy"}, {replyError + 3, "invalid"},
	{replyError + 4, "not supported by its platform"}, {replyError + 5, "TLS is required, which is not supported here"},
	{replyError + 6, "no such export"}, {replyError + 7, "shutting down"}, {replyError + 8, "the block size is required"},
	{replyError + 9, "request too big"},
}

// printable makes text of a server fit for a log: at most 200 bytes, no
// control characters.
func printable(b []byte) string {
	s := strings.ToValidUTF8(string(b[:min(len(b), 200)]), "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
