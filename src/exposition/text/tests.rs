use super::*;
#[test]
fn smoke() {
    let body = b"# HELP h Sizes.\n# TYPE h histogram\nh_bucket{x=\"1\",le=\"1\"} 1\nh_bucket{x=\"2\",le=\"2.5\"} 3\nh_bucket{le=\"+Inf\",x=\"1\"} 4\nh_sum{x=\"1\"} 9.5\nh_count{x=\"1\"} 4\na 1\nh_count{x=\"2\"} 3\nb 2 17\na{a=\"\\n\"} 7\n{a=\"2\",\"a\"} 3\n";
    let families = parse(body, NameRules::Legacy).expect("valid");
    assert_eq!(families.families.len(), 3);
}
