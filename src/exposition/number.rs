//! stub
/// stub
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(format!("{value}").as_bytes());
}
