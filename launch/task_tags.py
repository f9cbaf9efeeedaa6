"""Names in package descriptions, tagged by rules (distant supervision): no person has labelled or checked them.

Four kinds, as IOB2 tags (B-… the first word of a name, I-… its further words, O all others):
  PKG       a Debian package or project: a word equal to a package name that contains a digit, hyphen or plus sign; or a
            capitalised word, not first in its sentence, whose lower-case form is a package name and that the
            descriptions nearly always capitalise ("LibreOffice", but not "Make"); a "GNU" or "Apache" before it belongs to it
  LANG      a programming language, from the list below
  FORMAT    a file format, markup or encoding, from the list below
  PROTOCOL  a network protocol, from the list below
Where kinds compete, the longest phrase of the lists wins, then the lists before the package names.
"""
import collections
import re

PHRASES = {
    "LANG": """Python; Python 2; Python 3; Perl; Perl 5; Perl 6; PHP; Ruby; Java; JavaScript; Javascript; TypeScript; C; C++;
        C#; C 89; C 99; F#; Objective-C; Objective C; Objective-C++; OCaml; Objective Caml; Haskell; Erlang; Elixir; Rust;
        Golang; Lua; Tcl; GNU R; Common Lisp; Emacs Lisp; Lisp; Guile Scheme; Prolog; Fortran; Fortran 77; Fortran 90; Ada;
        Pascal; Object Pascal; Delphi; Scala; Kotlin; Clojure; Groovy; Vala; Smalltalk; Julia; Matlab; MATLAB; COBOL; Forth;
        Visual Basic; BASIC; Verilog; VHDL; SystemC; SQL; CoffeeScript; Eiffel; Standard ML; SML; AWK; Raku; Idris; Agda;
        ECMAScript; ActionScript; PL/SQL; PostScript""",
    "FORMAT": """XML; HTML; HTML5; XHTML; SGML; CSS; CSS3; SCSS; JSON; YAML; TOML; CSV; SVG; PDF; EPS; DVI; PNG; MNG; JPEG; JPG;
        JPEG 2000; GIF; TIFF; GeoTIFF; WebP; BMP; PNM; XPM; OpenEXR; MP3; MP4; Ogg; Ogg Vorbis; Vorbis; Theora; FLAC; WAV; AAC;
        Opus; MIDI; AVI; Matroska; MPEG; MPEG-1; MPEG-2; MPEG-4; H.264; H.265; HEVC; AV1; VP8; VP9; ZIP; RTF; ODF; OpenDocument;
        DOCX; XLSX; EPUB; DocBook; DocBook XML; Markdown; reStructuredText; AsciiDoc; BibTeX; ASCII; UTF-8; UTF-16; Unicode;
        Base64; HDF5; NetCDF; FITS; DICOM; FASTA; FASTQ; SAM; BAM; VCF; PDB; DXF; GPX; KML; GeoJSON; ELF; ASN.1; BSON; CBOR;
        MessagePack; Protocol Buffers; vCard; iCalendar; TrueType; OpenType; PostScript Type 1; BDF; XSLT; XPath; RDF; WSDL;
        ISO 9660; FAT; NTFS; ID3; M3U""",
    "PROTOCOL": """HTTP; HTTPS; HTTP/2; FTP; SFTP; TFTP; SSH; SSH2; SSL; TLS; DTLS; TCP; TCP/IP; UDP; IP; IPv4; IPv6; ICMP; ARP;
        SMTP; IMAP; IMAP4; POP; POP3; LDAP; SNMP; DNS; mDNS; DNSSEC; DHCP; DHCPv6; BOOTP; NFS; SMB; CIFS; SIP; RTP; RTSP; RTMP;
        XMPP; Jabber; IRC; NNTP; Telnet; RSS; Atom; SOAP; XML-RPC; JSON-RPC; OAuth; OAuth2; SAML; OpenID; Kerberos; RADIUS; MQTT;
        AMQP; STOMP; WebSocket; WebSockets; WebRTC; WebDAV; CalDAV; CardDAV; BGP; OSPF; RIP; NTP; PTP; VNC; RDP; Bluetooth; iSCSI;
        IPsec; IPSec; IKE; IKEv2; PPP; PPPoE; L2TP; PPTP; VoIP; UPnP; DLNA; Zeroconf; Modbus; BitTorrent; NetBIOS; Ethernet""",
}
# Ordinary words and letters that are languages only before one of the words that follow.
AMBIGUOUS = {"Go": "LANG", "R": "LANG", "D": "LANG", "Swift": "LANG", "Scheme": "LANG", "Crystal": "LANG"}
AFTER_AMBIGUOUS = {"programming", "language", "library", "libraries", "package", "packages", "module", "modules", "code",
                   "implementation", "bindings", "binding", "programs", "compiler", "interpreter", "developers", "source"}
WORD = re.compile(r"""(?P<open>[(\[{<"'`“‘*|]*)(?P<word>.*?)(?P<close>(?:['’]s)?[\])}>"'`”’*|.,;:!?…]*)""")
ENDS = {".", "!", "?", ":", "-", "•"}


def split_words(text):
    """Words as a person would count them: punctuation around a word and "'s" stand alone, "C/C++" is three tokens."""
    tokens = []
    for chunk in text.split():
        match = WORD.fullmatch(chunk)
        tokens += match["open"]
        word = match["word"]
        if re.fullmatch(r"[A-Za-z][\w+#-]*(?:/[A-Za-z][\w+#-]*)+", word) and word not in PHRASE_WORDS:
            tokens += [part for part in re.split("(/)", word) if part]
        elif word:
            tokens.append(word)
        close = match["close"]
        if close[:2] in ("'s", "’s"):
            tokens.append(close[:2])
            close = close[2:]
        tokens += close
    return tokens


def phrase_table():
    table = {}
    for kind, phrases in PHRASES.items():
        for phrase in phrases.split(";"):
            table.setdefault(tuple(phrase.split()), kind)
    return table


PHRASE_TABLE = phrase_table()
PHRASE_WORDS = {word for phrase in PHRASE_TABLE for word in phrase}
LONGEST = max(map(len, PHRASE_TABLE))


def starts_sentence(tokens, place):
    return place == 0 or tokens[place - 1] in ENDS or not re.search(r"\w", tokens[place - 1])


def project_names(names, all_tokens):
    """Capitalised words that name a project: a package has that name in lower case, and of the word's occurrences inside
    sentences at least 9 in 10 are capitalised, so that it is no ordinary word."""
    capital, small = collections.Counter(), collections.Counter()
    lower_names = {name for name in names if name.isalnum() and len(name) > 2}
    for tokens in all_tokens:
        for place, token in enumerate(tokens):
            if token in lower_names:
                small[token] += 1
            elif token[:1].isupper() and token.lower() in lower_names and not starts_sentence(tokens, place):
                capital[token] += 1
    return {word for word, count in capital.items() if count >= 3 and count >= 9 * small[word.lower()]}


def phrase_at(tokens, place):
    """(number of tokens, kind) of the longest listed phrase that starts here, or (0, None)."""
    for length in range(min(LONGEST, len(tokens) - place), 0, -1):
        kind = PHRASE_TABLE.get(tuple(tokens[place:place + length]))
        if kind:
            return length, kind
    following = tokens[place + 1] if place + 1 < len(tokens) else ""
    if tokens[place] in AMBIGUOUS and following in AFTER_AMBIGUOUS:
        return 1, AMBIGUOUS[tokens[place]]
    return 0, None


def is_package(tokens, place, names, projects):
    token = tokens[place]
    if token in names and len(token) > 2 and re.search(r"[a-z]", token) and re.search(r"[0-9+-]", token):
        return True
    return token in projects and not starts_sentence(tokens, place)


def tag(tokens, names, projects):
    """One IOB2 tag per token; `names` are all package names, `projects` those of project_names()."""
    tags, place = [], 0
    while place < len(tokens):
        length, kind = phrase_at(tokens, place)
        if not length:
            prefixed = tokens[place] in ("GNU", "Apache") and place + 1 < len(tokens) and not phrase_at(tokens, place + 1)[0]
            if prefixed and is_package(tokens, place + 1, names, projects):
                length, kind = 2, "PKG"
            elif is_package(tokens, place, names, projects):
                length, kind = 1, "PKG"
        tags += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1) if length else ["O"]
        place += max(length, 1)
    return tags
