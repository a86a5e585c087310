//! As much of PNG (RFC 2083) as Chromium's screenshots use: 8 bits a channel, RGB or RGBA, not interlaced.

use std::io::Read as _;

/// The share of pixels that are nearer to black than to white.
pub(crate) fn dark_share(file: &[u8]) -> f64 {
    assert!(file.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let (mut width, mut channels, mut packed) = (0, 0, Vec::new());
    let mut rest = &file[8..];
    while rest.len() >= 12 {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let data = &rest[8..8 + length];
        match &rest[4..8] {
            b"IHDR" => {
                width = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
                assert_eq!((data[8], data[12]), (8, 0), "bits, interlace");
                channels = match data[9] {
                    2 => 3,
                    6 => 4,
                    kind => panic!("colour type {kind}"),
                };
            }
            b"IDAT" => packed.extend_from_slice(data),
            _ => {}
        }
        rest = &rest[12 + length..];
    }
    let mut raw = Vec::new();
    flate2::read::ZlibDecoder::new(&*packed).read_to_end(&mut raw).unwrap();
    let stride = width * channels;
    let mut above = vec![0u8; stride];
    let (mut dark, mut all) = (0_u32, 0_u32);
    for line in raw.chunks_exact(stride + 1) {
        let (filter, mut line) = (line[0], line[1..].to_vec());
        for at in 0..stride {
            let left = if at >= channels { line[at - channels] } else { 0 };
            let corner = if at >= channels { above[at - channels] } else { 0 };
            line[at] = line[at].wrapping_add(predict(filter, left, above[at], corner));
        }
        for pixel in line.chunks_exact(channels) {
            let light: u32 = pixel[..3].iter().map(|&value| u32::from(value)).sum();
            dark += u32::from(light < 3 * 128);
            all += 1;
        }
        above = line;
    }
    assert!(all > 0, "no pixels");
    f64::from(dark) / f64::from(all)
}

fn predict(filter: u8, left: u8, up: u8, corner: u8) -> u8 {
    match filter {
        0 => 0,
        1 => left,
        2 => up,
        3 => u16::midpoint(u16::from(left), u16::from(up)).try_into().unwrap(),
        4 => {
            let estimate = i16::from(left) + i16::from(up) - i16::from(corner);
            let distance = |value: u8| (estimate - i16::from(value)).abs();
            if distance(left) <= distance(up) && distance(left) <= distance(corner) {
                left
            } else if distance(up) <= distance(corner) {
                up
            } else {
                corner
            }
        }
        filter => panic!("filter {filter}"),
    }
}
