use super::*;

/// Makes a directory with these files; `{}` in their text stands for the directory.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("{}", directory.path().to_str().unwrap())).unwrap();
    }
    directory
}

fn names(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let directory = directory(files);
    let mut problems = Vec::new();
    let items = read(&directory.path().join("torrc"), &mut problems);
    let strip = |text: String| text.replace(directory.path().to_str().unwrap(), "");
    let problems = problems.iter().map(|problem| strip(problem.to_string())).collect();
    (items.into_iter().map(|item| item.name).collect(), problems)
}

#[test]
fn includes_stand_where_they_are_written() {
    let files = [
        ("torrc", "A 1\n%include {}/one\n%include {}/dir\n%include {}/*.conf\n%include {}/no*match\nZ 1"),
        ("one", "B 1\n%include {}/two"),
        ("two", "C 1"),
        ("dir/20", "E 1"),
        ("dir/10", "D 1"),
        ("dir/.hidden", "X 1"),
        ("dir/sub/file", "X 1"),
        ("b.conf", "G 1"),
        ("a.conf", "F 1"),
        (".c.conf", "X 1"),
        ("empty.conf", ""),
    ];
    let (names, problems) = names(&files);
    assert_eq!(names, ["A", "B", "C", "D", "E", "F", "G", "Z"]);
    assert_eq!(problems, [""; 0]);
}

#[test]
fn origins_name_the_included_file() {
    let directory = directory(&[("torrc", "%include {}/x"), ("x", "\n\nNickname a")]);
    let items = read(&directory.path().join("torrc"), &mut Vec::new());
    assert!(items[0].origin.to_string().ends_with("/x:3"), "{}", items[0].origin);
}

#[test]
fn what_cannot_be_included_is_reported_and_the_rest_is_read() {
    let (names, problems) = names(&[("torrc", "%include {}/missing\nA 1\n%include {}/torrc\n%include\nB 1")]);
    assert_eq!(names, ["A", "B"]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(
        problems[0].starts_with("/torrc:1: cannot include \"/missing\": No such file"),
        "{}",
        problems[0]
    );
    assert_eq!(problems[1], "/torrc:3: /torrc includes itself; remove this %include");
}

#[test]
fn a_missing_file_is_a_problem() {
    let mut problems = Vec::new();
    assert_eq!(read(Path::new("/nonexistent/torrc"), &mut problems), []);
    assert_eq!(problems.len(), 1);
}

#[test]
fn nesting_and_number_of_files_are_bounded() {
    let chain: Vec<_> = (0..40).map(|i| (format!("{i}"), format!("A 1\n%include {{}}/{}", i + 1))).collect();
    let mut files: Vec<_> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("torrc", "%include {}/0"));
    let (found, problems) = names(&files);
    assert_eq!((found.len(), problems.len()), (INCLUDE_DEPTH, 1), "{problems:?}");

    // Each file includes the next one four times: 4^11 files if nobody counted.
    let text = |i: usize| format!("%include {{}}/{}\n", i + 1).repeat(4);
    let mut bomb: Vec<_> = (0..11).map(|i| (i.to_string(), text(i))).collect();
    bomb.push(("11".to_owned(), "A 1".to_owned()));
    bomb.push(("torrc".to_owned(), "%include {}/0".to_owned()));
    let files: Vec<_> = bomb.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(
        names(&files).1,
        ["/10:1: more than 1000 files are included; look for files that include each other many times over"]
    );
}
